"""The page of one run: what it found, its pictures, its evidence, as blocks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gan_kd.distill.ceiling import gap_warnings
from gan_kd.recipe import from_dict, network_in_words
from gan_kd.recipe.families import FAMILIES, OLDEST
from gan_kd.recipe.words import INHERITANCE, UNTRAINED
from gan_kd.report import page, published
from gan_kd.report.compare import ALSO, published_for
from gan_kd.report.run import NETWORKS, Network, Run, leaves, minus, number

EVIDENCE = ("recipe.yaml", "metrics.jsonl", "train.log")
DASH = "–"
# By the words of files.
_HEADS = {"teacher": "inherited", "untrained": "untrained", "own": "own"}
_ALONE = {
    INHERITANCE: "the student with 1x1 adapters and a trainable copy of the teacher's head, without a distiller",
    UNTRAINED: (
        "the student with 1x1 adapters and the layers and anchors of the teacher's head, its weights drawn at random, "
        "without a distiller: what the layers alone give"
    ),
}


def percent(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A percentage without the sign for it, a dash for None."""
    if value is None:
        return DASH
    return f"{value:+.{digits}f}".replace("-", "−") if sign else f"{value:.{digits}f}"


def count(value: Any) -> str:
    """A number of parameters or operations with a unit prefix, three digits."""
    if not value:
        return DASH
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:g}"


def head_in_words(head: Any, adapters: Any) -> str:
    """Whose predictors a network has, by what its files say, and whether adapters stand before them."""
    return _HEADS.get(head, str(head)) + (", adapters" if adapters else "") if head else DASH


def lead_gained(run: Run) -> str:
    """Part of the teacher's lead that the student gained, a dash where there was none."""
    return DASH if run.gap_closed is None else f"{percent(run.gap_closed, 0)} %"


def setting(run: Run) -> list[tuple[str, str]]:
    """What was run, as (label, value)."""
    recipe, data, train = run.recipe, run.recipe["data"], run.recipe["train"]
    student, teacher = recipe["student"]["backbone"], recipe["teacher"]["backbone"]
    detector = FAMILIES[recipe.get("detector", OLDEST)].name
    stages = []
    for name, stage in recipe["stages"].items():
        trains = network_in_words(stage["trains"], recipe["distill"]["head"])
        stages.append(", ".join([f"{name}: {trains}, {stage['epochs']} epochs", *stage["distillers"]]))
    parts = [part for network in run.networks.values() for part in (network.best, network.eval)]
    commits = [*run.environment.get("commits", ()), *(part["commit"] for part in parts if "commit" in part)]
    machine = run.first("machine") or run.environment.get("machine") or {}
    splits = f"{', '.join(data['train'])} → {', '.join(data['val'])}"
    return [
        ("student ← teacher", f"{detector} {student} ← {detector} {teacher}"),
        ("data", f"{data['dataset']}: {splits}, {data['size']} px"),
        ("stages", "\n".join(stages)),
        ("batch", f"{train['batch_size']} images on {', '.join(train['contexts'])}{_edge_sum(run)}"),
        ("metric", str(recipe["eval"]["metric"])),
        ("seed", str(run.seed)),
        ("commit", ", ".join(dict.fromkeys(commits)) or "not recorded"),
        ("recipe hash", str(run.first("recipe_hash") or "not recorded")),
        ("machine", ", ".join(f"{key} {value}" for key, value in machine.items()) or "not recorded"),
    ]


def _edge_sum(run: Run) -> str:
    """Over how many images Localization Distillation's box terms are sums; nothing for a run without it."""
    recipe = from_dict(run.recipe)
    if "localization" not in recipe.distillers_of("distilled"):
        return ""
    images = recipe.distill.localization.ld.reference
    return f"; box terms of Localization Distillation are sums over {images:g} images, whatever the batch"


def blocks(run: Run, folder: Path, photos: bool = True) -> list[page.Block]:
    """The page from its finding to its evidence; draws its pictures into `folder`. photos: the images too."""
    from gan_kd.report import pictures

    networks = [run.networks[name] for name in NETWORKS if run.networks[name].shown or name != "control"]
    description = run.recipe.get("description")
    return [
        *([page.Text(str(description))] if description else []),
        page.Text(headline(run), "lead"),
        _tiles(run, networks),
        *(page.Text(problem, "warning") for problem in (*run.problems, *critic_warnings(run))),
        page.Section("Results"),
        _results(run, networks),
        *(page.Text(text, "note") for text in _remarks(run, networks)),
        *_published(run),
        *pictures.detections(run, folder, photos),
        *pictures.attention_maps(run, folder, photos),
        *pictures.curves(networks, folder),
        *pictures.distillation(networks, folder),
        *_evidence(run, networks, folder),
    ]


def critic_warnings(run: Run) -> list[str]:
    """What the last diagnosis of the critic says, where the run has one."""
    with_gap = [record for record in run.networks["distilled"].diagnoses if isinstance(record.get("critic_gap"), list)]
    if not with_gap:
        return []
    gaps = [number(gap) for gap in with_gap[-1]["critic_gap"]]
    known = [(side, gap) for side, gap in zip(with_gap[-1].get("maps", []), gaps) if gap is not None]
    recipe = from_dict(run.recipe)
    sides = [None if FAMILIES[recipe.detector].any_size else side for side, _ in known]
    texts = gap_warnings(recipe.distill.gan, sides, [gap for _, gap in known])
    return [f"At the end of the adversary {text}." for text in texts]


def headline(run: Run) -> str:
    """The finding in one or two sentences, or how far the run is."""
    maps = {name: run.networks[name].map for name in NETWORKS}
    if run.difference is None:
        missing = [name for name in ("teacher", "baseline", "distilled") if _wanting(run, name)]
        known = [f"{run.networks[name].title} {value:.1f}" for name, value in maps.items() if value is not None]
        if known and not missing:
            lacking = "distillation" if maps["distilled"] is None else "a baseline to compare with"
            return f"Without {lacking}: {', '.join(known)} % mAP."
        so_far = f" So far: {', '.join(known)} % mAP." if known else ""
        return f"Not complete: {', '.join(missing)} without an mAP.{so_far}"
    side = "above" if run.difference >= 0 else "below"
    text = (
        f"The distilled student ({run.method}) reaches {maps['distilled']:.1f} % mAP, {abs(run.difference):.1f} points "
        f"{side} the same student trained alone ({maps['baseline']:.1f} %). "
    )
    if maps["teacher"] is None:
        return text + "Its teacher was not run."
    text += f"Its teacher reaches {maps['teacher']:.1f} %"
    if run.gap_closed is None:
        return text + ", not a point above the student alone: there was no lead to gain."
    return text + (f": {lead_gained(run)} of the teacher's lead was gained." if run.difference > 0 else ".")


def _wanting(run: Run, network: str) -> bool:
    """Whether a network that the recipe has is without an mAP."""
    return run.networks[network].planned and run.networks[network].map is None


def _tiles(run: Run, networks: Sequence[Network]) -> page.Tiles:
    tiles = []
    for network in networks:
        value = "not run" if network.map is None else percent(network.map, 1)
        tiles.append((f"{network.title} mAP, %", value, page.COLOURS[network.name]))
    difference = percent(run.difference, 1, sign=True)
    tiles.append(("distilled − baseline, points", difference, page.COLOURS["distilled"]))
    tiles.append(("of the teacher's lead gained", lead_gained(run), page.COLOURS["teacher"]))
    return page.Tiles(tiles)


def _results(run: Run, networks: Sequence[Network]) -> page.Table:
    rows: list[tuple[str, ...]] = []
    for network in networks:
        role = "teacher" if network.name == "teacher" else "student"
        stage = network.best.get("stage")  # None for a teacher that was not trained here
        epoch = f" ({stage} {network.best['epoch']})" if stage and network.map is not None else ""
        rows.append((
            network.title,
            str(run.recipe[role]["backbone"]),
            percent(network.map) + epoch,
            percent(network.last_map),
            count(network.eval.get("parameters")),
            count(network.eval.get("macs")),
            percent(network.eval.get("images_per_s"), 1),
        ))  # fmt: skip
    best, last = percent(run.difference, sign=True), percent(run.last_difference, sign=True)
    rows.append(("distilled − baseline", "", best, last, "", "", ""))
    rows.append(("teacher's lead gained", "", lead_gained(run), "", "", "", ""))
    head: tuple[str, ...] = ("network", "backbone", "mAP %, best epoch", "mAP %, last epoch")
    head, align = (*head, "parameters", "MACs", "images/s"), "llrrrrr"
    further = _further(networks)
    if further:
        at = head.index("parameters")
        head, *rows = ((*row[:at], cell, *row[at:]) for row, cell in zip((head, *rows), further))
        align += "r"
    return page.Table(head, rows, align, page.DOTS, feet=2)


def _further(networks: Sequence[Network]) -> list[str]:
    """The results' column of further measures, its head first; [] where no network has them beside its mAP.

    By VOC's rules they are of the last epoch; COCO's own are those of the final evaluation.
    """
    measured, labels, epoch = {network.name: network.also_last for network in networks}, ALSO, "last"
    if not any("voc10" in found for found in measured.values()):
        measured, epoch = {network.name: network.summary for network in networks}, "best"
        labels = {name: name for name in ("AP50", "AP75")}
        if not any(measured.values()):
            return []

    def cell(values: Iterable[float | None], sign: bool = False) -> str:
        return ", ".join(percent(value, sign=sign) for value in values)

    rows = {name: [found.get(key) for key in labels] for name, found in measured.items()}
    differences = [minus(*both) for both in zip(rows["distilled"], rows["baseline"])]
    head = f"{', '.join(labels.values())} %, {epoch} epoch"
    return [head, *map(cell, rows.values()), cell(differences, sign=True), ""]


def _remarks(run: Run, networks: Sequence[Network]) -> list[str]:
    """What a reader must know to weigh the table: what is missing, how it was counted, what one seed says."""
    remarks = [f"{network.title}: {network.status}." for network in networks if network.status != "evaluated"]
    images, batch = run.first("images"), run.first("speed_batch")
    remarks.append(
        (f"mAP on {images} validation images. " if images else "")
        + "The best epoch was chosen by these images, which flatters every network a little; the last epoch "
        "was not chosen. MACs: multiply-accumulates for one image. images/s: forward pass with decoding and "
        "suppression" + (f" in batches of {batch}" if batch else "") + ", on the machine named below."
    )
    if any("voc10" in network.also_last for network in networks):
        remarks.append(
            "AP50, AP75: mean area under the curve at IoU 0.50 and 0.75 (voc10's rule). AP: its mean over the ten IoU "
            "thresholds 0.50, 0.55 to 0.95."
        )
    if run.difference is not None:
        remarks.append(
            f"One seed ({run.seed}): the spread over seeds was not run here, so that small differences say little."
        )
    if run.networks["control"].shown:
        title = run.networks["control"].title
        remarks.append(f"{title}: {_ALONE[title]}.")
    return remarks


def _published(run: Run) -> list[page.Block]:
    """The published row beside this run's numbers, or the sentence why there is none."""
    row = published.for_recipe(run.recipe)
    if row is None:
        return [page.Text("Published: the recipe names no row of a published table to compare with.", "note")]
    cell = f"{row.row} alone" if row.column == "none" else f"{row.row} ← {row.column}"
    title = f"Published table {row.table}, {cell} ({row.caption})"
    recipe, lines = from_dict(run.recipe), []
    for name in ("teacher", "baseline", "distilled"):
        here = run.networks[name].map
        found = published_for(recipe, name, here)
        if found is not None:
            difference = percent(found["difference"], 1, sign=True)
            lines.append((name, "not run" if here is None else percent(here), percent(found["value"], 1), difference))
    if not lines:
        text = f"{title} is not comparable: this run differs in test images, classes, input size or metric."
        return [page.Text(text, "note")]
    used = f"This run trained on {', '.join(run.recipe['data']['train'])}."
    return [
        page.Section("Beside the published table"),
        page.Table(("network", "here, %", "published, %", "difference"), lines, "lrrr", page.COLOURS),
        page.Text(f"{title}. {used} {row.note}".strip(), "note"),
    ]


def _evidence(run: Run, networks: Sequence[Network], folder: Path) -> list[page.Block]:
    """Where every number comes from: commands, setting, parameters, files, environment, recipe."""
    rows = []
    for network in networks:
        about = {**network.best, **network.eval}
        sha256, commit = str(about.get("sha256", DASH))[:16], str(about.get("commit", DASH))[:13]
        head = head_in_words(about.get("head"), about.get("adapters"))
        rows.append((network.title, sha256, head, commit, network.status))
    links = []
    for file in EVIDENCE:
        at = next((at / file for at in (folder, run.folder) if (at / file).is_file()), None)
        if at is not None:
            links.append((file, os.path.relpath(at, folder)))
    environment = {key: value for key, value in leaves(run.environment) if key not in ("commands", "commits")}
    return [
        page.Section("How it was made"),
        page.Code("\n".join(run.commands), "sh"),
        page.Table(("", ""), setting(run), "ll"),
        page.Section("Evidence"),
        page.Table(("network", "sha256 of its parameters", "head", "commit", "state"), rows, "lllll"),
        page.Links(links),
        page.Code("\n".join(f"{key}: {value}" for key, value in environment.items()), "", "Environment"),
        page.Code((run.folder / "recipe.yaml").read_text(encoding="utf-8"), "yaml", "Recipe, resolved"),
    ]
