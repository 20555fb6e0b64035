"""One page over several seeds of a recipe: mean and spread, and the difference seed by seed."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from gan_kd.recipe import uncounted
from gan_kd.report import page
from gan_kd.report.run import NETWORKS, Run, leaves, read_run
from gan_kd.report.single import count, lead_gained, percent, setting

REMARK = (
    "mAP on the validation images, which also chose the best epoch. ±: standard deviation over the seeds "
    "(n − 1). Difference and lead are counted seed by seed."
)


def make_summary(folders: Sequence[Path], linked: Sequence[Path], out: Path) -> Path:
    """Write the summary of the runs in `folders` into `out`, each linked to a file of its own; its path."""
    from gan_kd.report import plots

    runs = [read_run(folder) for folder in folders]
    out.mkdir(parents=True, exist_ok=True)
    names = [name for name in NETWORKS if name != "control" or any(run.networks[name].shown for run in runs)]
    drawn = plots.seed_curves([list(run.networks.values()) for run in runs], out / "seeds.png")
    alt = "mAP over training, a thin line for each seed, a thick one for their mean"
    caption = "Thin: single seeds. Thick: their mean, where every seed was evaluated."
    recipe = (folders[0] / "recipe.yaml").read_text(encoding="utf-8")
    blocks = [
        page.Text(_finding(runs), "lead"),
        *(page.Text(text, "warning") for text in _warnings(runs)),
        page.Section("Mean and spread"),
        _means(runs, names),
        page.Text(REMARK, "note"),
        page.Figure("seeds.png", alt, caption) if drawn else page.Text("Not run here: no evaluation yet."),
        page.Section("Seeds"),
        _seeds(runs, names),
        page.Links([(f"seed {run.seed}", os.path.relpath(at, out)) for run, at in zip(runs, linked)]),
        page.Section("How it was made"),
        page.Code("\n".join(command for run in runs for command in run.commands), "sh"),
        page.Table(("", ""), _common(runs), "ll"),
        page.Code(recipe, "yaml", f"Recipe of seed {runs[0].seed}"),
    ]
    return page.write(out, f"{runs[0].name}, {len(runs)} runs", blocks)


def mean_spread(values: Sequence[float | None], digits: int = 2, sign: bool = False) -> str:
    """Mean ± sample standard deviation of the values that are there; their number where some are missing."""
    known = [value for value in values if value is not None]
    if not known:
        return "not run"
    text = percent(statistics.mean(known), digits, sign)
    if len(known) > 1:
        text += f" ± {statistics.stdev(known):.{digits}f}"
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)} runs)"


def _finding(runs: Sequence[Run]) -> str:
    known = [run.difference for run in runs if run.difference is not None]
    if not known:
        return _without_difference(runs)
    better = sum(value > 0 for value in known)
    over, apart = f"{len(known)} seed{'s' if len(known) > 1 else ''}", mean_spread(known, 1, sign=True)
    return (
        f"Over {over} the distilled student ({runs[0].method}) differs from the same student trained alone by "
        f"{apart} points of mAP; it is better in {better} of {len(known)}.{_lead(runs)}"
    )


def _lead(runs: Sequence[Run]) -> str:
    """The sentence on how far the teacher is ahead; nothing where no run has one."""
    leads = [run.lead for run in runs if run.lead is not None]
    if not leads:
        return ""
    mean, least = mean_spread(leads, 1, sign=True), percent(min(leads), 1, sign=True)
    return f" The teacher differs from the student alone by {mean} points, in the closest seed by {least}."


def _without_difference(runs: Sequence[Run]) -> str:
    """What the runs reach whose recipes train no baseline or no distilled student; else that one is missing."""
    names = [name for name in NETWORKS if any(run.networks[name].planned for run in runs)]
    if {"baseline", "distilled"} <= {*names}:
        return "Not complete: no run has both a baseline and a distilled student evaluated."
    lacking = "a baseline to compare with" if "distilled" in names else "distillation"
    maps = (
        f"{runs[0].networks[name].title} {mean_spread([run.networks[name].map for run in runs], 1)}" for name in names
    )
    return f"Without {lacking}, mAP in percent: {', '.join(maps)}."


def _means(runs: Sequence[Run], names: Sequence[str]) -> page.Table:
    rows = []
    for name in names:
        found = [run.networks[name] for run in runs]
        rows.append((
            found[0].title,
            mean_spread([network.map for network in found]),
            mean_spread([network.last_map for network in found]),
            count(next((n.eval["parameters"] for n in found if n.eval.get("parameters")), None)),
            count(next((n.eval["macs"] for n in found if n.eval.get("macs")), None)),
            mean_spread([network.eval.get("images_per_s") for network in found], 1),
        ))  # fmt: skip
    best = mean_spread([run.difference for run in runs], sign=True)
    last = mean_spread([run.last_difference for run in runs], sign=True)
    rows.append(("teacher − baseline", mean_spread([run.lead for run in runs], sign=True), "", "", "", ""))
    rows.append(("distilled − baseline", best, last, "", "", ""))
    rows.append(("teacher's lead gained, %", mean_spread([run.gap_closed for run in runs], 0), "", "", "", ""))
    head = ("network", "mAP %, best epoch", "mAP %, last epoch", "parameters", "MACs", "images/s")
    return page.Table(head, rows, "lrrrrr", page.DOTS, feet=3)


def _seeds(runs: Sequence[Run], names: Sequence[str]) -> page.Table:
    rows = []
    for run in runs:
        maps = [percent(run.networks[name].map) for name in names]
        commit = str(run.first("commit") or "not recorded")[:13]
        differences = (percent(value, sign=True) for value in (run.lead, run.difference))
        rows.append((str(run.seed), *maps, *differences, lead_gained(run), commit))
    titles = [runs[0].networks[name].title for name in names]
    head = ("seed", *titles, "teacher − baseline", "distilled − baseline", "lead gained", "commit")
    return page.Table(head, rows, "r" * (len(head) - 1) + "l")


def _common(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Setting that all runs share, and every value where they do not."""
    settings = [dict(setting(run)) for run in runs]
    return [(key, "\n".join(dict.fromkeys(values[key] for values in settings))) for key in settings[0]]


def _warnings(runs: Sequence[Run]) -> list[str]:
    """What makes the runs no repetitions of one experiment: other recipes, other commits."""
    warnings = []
    flat = [dict(leaves(run.recipe)) for run in runs]
    apart = sorted({key for one in flat for key in one if any(other.get(key) != one[key] for other in flat)})
    # What changes neither parameters nor mAP does not make them another experiment.
    free = ("train.seed", *uncounted())
    apart = [key for key in apart if not any(f"{key}.".startswith(f"{part}.") for part in free)]
    if apart:
        more = f" and {len(apart) - 5} more keys" if len(apart) > 5 else ""
        warnings.append(f"The recipes of these runs differ, beyond the seed, in {', '.join(apart[:5])}{more}.")
    if len({run.first("commit") for run in runs}) > 1:
        warnings.append("These runs were made by different commits.")
    return warnings
