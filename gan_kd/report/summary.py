"""One page over several seeds of a recipe: mean and spread, and the difference seed by seed."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from gan_kd.report import page
from gan_kd.report.single import DASH, count, percent, setting
from gan_kd.report.run import NETWORKS, Run, leaves, read_run

# Keys that may differ between seeds of one recipe without making them another experiment.
FREE = ("train.seed", "train.contexts", "train.num_workers", "train.log_interval", "train.keep", "data.root")


def make_summary(folders: Sequence[Path], reports: Sequence[Path], out: Path) -> Path:
    """Write the summary of the runs in `folders` into `out`, linked to their `reports`; the path of its report.html."""
    from gan_kd.report import plots

    runs = [read_run(folder) for folder in folders]
    out.mkdir(parents=True, exist_ok=True)
    names = [name for name in NETWORKS if name != "control" or any(run.networks[name].shown for run in runs)]
    blocks: list[page.Block] = [page.Text(_finding(runs), "lead")]
    blocks += [page.Text(text, "warning") for text in _warnings(runs)]
    blocks += [page.Section("Mean and spread"), _means(runs, names), page.Text(
        "mAP of each network's best epoch on the validation images. ±: standard deviation over the seeds (n − 1). The "
        "difference and the part of the teacher's lead are counted seed by seed.", "note",
    )]  # fmt: skip
    if plots.seed_curves([list(run.networks.values()) for run in runs], out / "seeds.png"):
        alt = "mAP over training, one thin line a seed, one thick line for their mean"
        blocks.append(page.Figure("seeds.png", alt, "Thin: single seeds. Thick: their mean, where every seed was evaluated."))
    blocks += [page.Section("Seeds"), _seeds(runs, names)]
    links = [(f"seed {run.seed}", os.path.relpath(report, out)) for run, report in zip(runs, reports)]
    blocks += [page.Links(links), page.Section("How it was made")]
    commands = [command for run in runs for command in run.environment.get("commands") or ["(command not recorded)"]]
    blocks += [page.Code("\n".join(commands), "sh"), page.Table(("", ""), _common(runs), "ll")]
    blocks.append(page.Code((folders[0] / "recipe.yaml").read_text(encoding="utf-8"), "yaml", f"Recipe of seed {runs[0].seed}"))
    return page.write(out, f"{runs[0].name}, {len(runs)} runs", blocks)


def mean_spread(values: Sequence[Optional[float]], digits: int = 2, sign: bool = False) -> str:
    """Mean ± sample standard deviation of the values that there are, and their number where some are missing."""
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
        return "Not complete: no run has both a baseline and a distilled student evaluated."
    better = sum(value > 0 for value in known)
    return (
        f"Over {len(known)} seed{'s' if len(known) > 1 else ''} the distilled student differs from the same student trained "
        f"alone by {mean_spread(known, 1, sign=True)} points of mAP; it is better in {better} of {len(known)}."
    )


def _means(runs: Sequence[Run], names: Sequence[str]) -> page.Table:
    from gan_kd.report.plots import COLOURS

    rows = []
    for name in names:
        found = [run.networks[name] for run in runs]
        sizes = [next((n.eval[key] for n in found if n.eval.get(key)), None) for key in ("parameters", "macs")]
        maps, lasts = mean_spread([n.map for n in found]), mean_spread([n.last_map for n in found])
        rows.append([name, maps, lasts, *map(count, sizes), mean_spread([n.eval.get("images_per_s") for n in found], 1)])
    rows.append(["distilled − baseline", mean_spread([run.difference for run in runs], sign=True), "", "", "", ""])
    rows.append(["teacher's lead gained, %", mean_spread([run.gap_closed for run in runs], 0), "", "", "", ""])
    head = ("network", "mAP %, best epoch", "mAP %, last epoch", "parameters", "MACs", "images/s")
    return page.Table(head, rows, "lrrrrr", COLOURS)


def _seeds(runs: Sequence[Run], names: Sequence[str]) -> page.Table:
    rows = [
        [str(run.seed), *(percent(run.networks[name].map) for name in names), percent(run.difference, sign=True),
         DASH if run.gap_closed is None else f"{run.gap_closed:.0f} %", str(run.first("commit") or "not recorded")[:12]]
        for run in runs
    ]  # fmt: skip
    head = ("seed", *names, "distilled − baseline", "lead gained", "commit")
    return page.Table(head, rows, "r" * (len(head) - 1) + "l")


def _common(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Setting that all runs share, and every value where they do not."""
    settings = [dict(setting(run)) for run in runs]
    return [(key, "\n".join(dict.fromkeys(values[key] for values in settings))) for key in settings[0]]


def _warnings(runs: Sequence[Run]) -> list[str]:
    """What makes the runs no repetitions of one experiment: equal seeds, other recipes, other commits."""
    warnings = []
    if len({run.seed for run in runs}) < len(runs):
        warnings.append("Two of these runs have the same seed: they are not independent.")
    flat = [dict(leaves(run.recipe)) for run in runs]
    apart = sorted({key for one in flat for key in one if any(other.get(key) != one[key] for other in flat)})
    apart = [key for key in apart if not key.startswith(FREE)]
    if apart:
        warnings.append(f"The recipes of these runs differ, beyond the seed, in {', '.join(apart)}.")
    if len({run.first("commit") for run in runs}) > 1:
        warnings.append("These runs were made by different commits.")
    return warnings
