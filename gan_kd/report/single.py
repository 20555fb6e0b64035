"""The page of one run: what it found, its pictures, its evidence, as blocks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from gan_kd.report import page, published
from gan_kd.report.run import NETWORKS, Network, Run, leaves

EVIDENCE = ("recipe.yaml", "metrics.jsonl", "train.log")
DASH = "–"


def percent(value: Optional[float], digits: int = 2, sign: bool = False) -> str:
    """A percentage without its sign of percent, a dash for None."""
    return DASH if value is None else f"{value:+.{digits}f}".replace("-", "−") if sign else f"{value:.{digits}f}"


def count(value: Any) -> str:
    """A number of parameters or operations with a unit prefix, three digits."""
    if not value:
        return DASH
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:g}"


def setting(run: Run) -> list[tuple[str, str]]:
    """What was run, as (label, value)."""
    recipe, data = run.recipe, run.recipe["data"]
    stages = (
        f"{name} ({stage['trains']}, {stage['epochs']} epochs{''.join(', ' + d for d in stage.get('distillers') or ())})"
        for name, stage in recipe["stages"].items()
    )
    machine = run.first("machine") or {}
    return [
        ("student ← teacher", f"SSD {recipe['student']['backbone']} ← SSD {recipe['teacher']['backbone']}"),
        ("data", f"{data['dataset']}: {', '.join(data['train'])} → {', '.join(data['val'])}, {data['size']} px"),
        ("stages", "\n".join(stages)),
        ("batch", f"{recipe['train']['batch_size']} images on {', '.join(recipe['train'].get('contexts') or ())}"),
        ("metric", str(run.first("metric", ("eval",)) or recipe.get("eval", {}).get("metric", DASH))),
        ("seed", str(run.seed)),
        ("commit", str(run.first("commit") or run.environment.get("commit") or "not recorded")),
        ("recipe hash", str(run.first("recipe_hash") or run.environment.get("recipe_hash") or "not recorded")),
        ("machine", ", ".join(f"{key} {value}" for key, value in machine.items()) or "not recorded"),
    ]


def blocks(run: Run, folder: Path) -> list[page.Block]:
    """The page from its finding to its evidence; draws its pictures into `folder`."""
    networks = [run.networks[name] for name in NETWORKS if run.networks[name].shown or name != "control"]
    description = run.recipe.get("description")
    return [
        *([page.Text(str(description))] if description else []),
        page.Text(headline(run), "lead"),
        page.Tiles(_tiles(run)),
        *(page.Text(problem, "warning") for problem in run.problems),
        page.Section("Results"),
        _results(run, networks),
        *(page.Text(text, "note") for text in _remarks(run, networks)),
        *_published(run),
        *_pictures(run, networks, folder),
        *_evidence(run, networks, folder),
    ]


def headline(run: Run) -> str:
    """The finding in one or two sentences, or how far the run is."""
    maps = {name: run.networks[name].map for name in NETWORKS}
    if run.difference is None:
        known = [f"{name} {value:.1f}" for name, value in maps.items() if value is not None]
        missing = [name for name in ("teacher", "baseline", "distilled") if maps[name] is None]
        return f"Not complete: {', '.join(missing)} without an mAP. " + (f"So far: {', '.join(known)} % mAP." if known else "")
    side = "above" if run.difference > 0 else "below"
    text = (
        f"The distilled student reaches {maps['distilled']:.1f} % mAP, {abs(run.difference):.1f} points {side} the same "
        f"student trained alone ({maps['baseline']:.1f} %)"
    )
    text += f"; its teacher reaches {maps['teacher']:.1f} %." if maps["teacher"] is not None else "; its teacher was not run."
    if run.gap_closed is not None:
        text += f" That is {run.gap_closed:.0f} % of the distance to the teacher."
    return text


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    from gan_kd.report.plots import COLOURS

    tiles = [
        (f"{name} mAP, %", percent(run.networks[name].map, 1) if run.networks[name].map is not None else "not run", colour)
        for name, colour in COLOURS.items()
        if name != "control" or run.networks[name].shown
    ]
    closed = DASH if run.gap_closed is None else f"{run.gap_closed:.0f} %"
    return [
        *tiles,
        ("distilled − baseline, points", percent(run.difference, 1, sign=True), COLOURS["distilled"]),
        ("of the teacher's lead gained", closed, COLOURS["teacher"]),
    ]


def _results(run: Run, networks: Sequence[Network]) -> page.Table:
    from gan_kd.report.plots import COLOURS

    rows = []
    for network in networks:
        found = network.eval
        at = f" ({network.best['stage']} {network.best['epoch']})" if {"stage", "epoch"} <= set(network.best) else ""
        speed = found.get("images_per_s")
        rows.append([
            network.name,
            str(network.best.get("backbone") or run.recipe["teacher" if network.name == "teacher" else "student"]["backbone"]),
            percent(network.map) + (at if network.map is not None else ""),
            percent(network.last_map),
            count(found.get("parameters")),
            count(found.get("macs")),
            f"{speed:.1f}" if speed else DASH,
        ])  # fmt: skip
    rows.append(["distilled − baseline", "", percent(run.difference, sign=True), percent(_last_difference(run), sign=True)])
    rows.append(["teacher's lead gained", "", DASH if run.gap_closed is None else f"{run.gap_closed:.0f} %"])
    head = ("network", "backbone", "mAP %, best epoch", "mAP %, last epoch", "parameters", "MACs", "images/s")
    return page.Table(head, [row + [""] * (len(head) - len(row)) for row in rows], "llrrrrr", COLOURS)


def _last_difference(run: Run) -> Optional[float]:
    student, plain = run.networks["distilled"].last_map, run.networks["baseline"].last_map
    return None if student is None or plain is None else student - plain


def _remarks(run: Run, networks: Sequence[Network]) -> list[str]:
    """What a reader must know to weigh the table: what is missing, how it was counted, what one seed says."""
    remarks = [f"{network.name}: {network.status}." for network in networks if network.status != "evaluated"]
    images = run.first("images", ("eval",))
    counted = f"mAP on {images} validation images. " if images else ""
    remarks.append(
        counted + "The best epoch was chosen on these images, so that it is a little optimistic for every network alike; "
        "the last epoch is not. MACs: multiply-accumulates for one image. images/s: forward pass with decoding and "
        "suppression on the machine named below."
    )
    if run.difference is not None:
        remarks.append(f"One seed ({run.seed}); the spread over seeds was not run here, so that small differences say little.")
    if run.networks["control"].shown:
        remarks.append("control: the student with 1x1 adapters and the teacher's head, trained without the adversary.")
    return remarks


def _published(run: Run) -> list[page.Block]:
    """The published row beside this run's numbers, or the sentence that there is none."""
    row = published.for_recipe(run.recipe)
    if row is None:
        return [page.Text("The recipe names no row of a published table: nothing published is comparable.", "note")]
    lines = []
    for name in ("teacher", "baseline", "distilled"):
        here, there = run.networks[name].map, row.values.get(name)
        apart = None if here is None or there is None else here - there
        lines.append([name, percent(here) if here is not None else "not run", percent(there, 1), percent(apart, 1, sign=True)])
    data = run.recipe["data"]
    used = f"{data['dataset']}, {', '.join(data['train'])} → {', '.join(data['val'])}, {data['size']} px"
    caption = f"Published table {row.table}, {row.row} ← {row.column}: {row.caption}. This run: {used}. {row.note}"
    table = page.Table(("network", "here, %", "published, %", "difference"), lines, "lrrr")
    return [page.Section("Beside the published table"), table, page.Text(caption.strip(), "note")]


def _pictures(run: Run, networks: Sequence[Network], folder: Path) -> list[page.Block]:
    """Draw every picture that the run has data for; a sentence stands in for each of the others."""
    from gan_kd.report import photos, plots

    blocks: list[page.Block] = [page.Section("Detections")]
    classes = run.first("classes") or list(run.first("ap", ("eval",)) or ())
    samples, absent = photos.choose(run)
    if samples and photos.detections(run, samples, classes, folder / "detections.jpg"):
        caption = (
            f"Detections scored above {photos.SCORE:g}, with score in percent. Dashed: overlaps no object of its class by half."
        )
        alt = "Validation images with ground truth and the detections of teacher, baseline and distilled student"
        blocks.append(page.Figure("detections.jpg", alt, caption))
    elif not absent:
        blocks.append(page.Text("Not run: no network was evaluated, so that there are no detections to show."))
    if absent:
        blocks.append(page.Text(f"{absent} image(s) chosen for this page are not on the machine that wrote it.", "note"))
    drawings = (
        ("Average precision by class", plots.class_bars, "ap.png", "AP of each class, one bar a network",
         "AP of each network's best epoch.", "no evaluation yet"),
        ("mAP over training", plots.map_curves, "map.png", "mAP on the validation images over training, one line a network",
         "Ring: best epoch. Dotted: where the distilled student's next stage starts.", "no evaluation yet"),
        ("Losses", plots.losses, "losses.png", "Training losses over training, one line a network",
         "Pale: as logged; full: running mean.", "nothing was trained yet"),
        ("Adversary", plots.critic, "critic.png", "Scores of the discriminators for teacher and student maps",
         "Scores over the adversarial stage. D lowers L_D, the student raises it towards 0, where D cannot tell them apart.",
         "the log has no score of a discriminator: no stage with an adversary was run"),
        ("Learning rate", plots.learning_rate, "lr.png", "Learning rate over training, one line a network",
         "Of each network's optimiser; D's own is in the recipe.", "nothing was trained yet"),
    )  # fmt: skip
    for title, draw, file, alt, caption, missing in drawings:
        drawn = draw(networks, folder / file)
        blocks += [page.Section(title), page.Figure(file, alt, caption) if drawn else page.Text(f"Not run: {missing}.")]
    return blocks


def _evidence(run: Run, networks: Sequence[Network], folder: Path) -> list[page.Block]:
    """Where every number comes from: setting, parameters files, commands, environment, recipe."""
    commands = run.environment.get("commands") or []
    blocks: list[page.Block] = [page.Section("How it was made")]
    if commands:
        blocks.append(page.Code("\n".join(commands), "sh"))
    else:
        blocks.append(page.Text("The command was not recorded in environment.json.", "note"))
    blocks.append(page.Table(("", ""), setting(run), "ll"))
    rows = [
        [n.name, str(n.best.get("sha256", DASH))[:16], str(n.best.get("commit") or n.eval.get("commit") or DASH)[:12],
         str(n.best.get("head", DASH)), str(n.eval.get("images", DASH)), n.status]
        for n in networks
    ]  # fmt: skip
    head = ("network", "sha256 of its parameters", "commit", "head", "images", "state")
    blocks += [page.Section("Evidence"), page.Table(head, rows, "llllrl")]
    copied = [folder if (folder / file).is_file() else run.folder for file in EVIDENCE]
    links = [(file, os.path.relpath(at / file, folder)) for at, file in zip(copied, EVIDENCE) if (at / file).is_file()]
    if links:
        blocks.append(page.Links(links))
    environment = {key: value for key, value in leaves(run.environment) if key != "commands"}
    if environment:
        blocks.append(page.Code("\n".join(f"{key}: {value}" for key, value in sorted(environment.items())), "", "Environment"))
    blocks.append(page.Code((run.folder / "recipe.yaml").read_text(encoding="utf-8"), "yaml", "Recipe, resolved"))
    return blocks
