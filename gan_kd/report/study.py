"""The page of a study: its arms side by side, seed by seed, with what every number comes from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from math import isnan
from pathlib import Path

from gan_kd.recipe import network_in_words
from gan_kd.report import page
from gan_kd.report.arms import BEST, LAST, Arm, Cell, commits, read_arms, warnings
from gan_kd.report.run import Run
from gan_kd.report.single import DASH, EVIDENCE, count, head_in_words, percent, setting
from gan_kd.report.spread import Interval
from gan_kd.report.summary import mean_spread
from gan_kd.study.plan import Job, Plan

# Okabe and Ito's colours again, in an order in which neighbours differ most.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#59636e", "#000000")
COPIED = (*EVIDENCE, "environment.json")
REMARK = (
    "mAP after the last epoch was not chosen by the images that it is measured on; that of the best epoch was, which "
    "flatters every arm a little. ±: standard deviation over the seeds (n − 1). Differences are counted seed by seed "
    "against {baseline}; in brackets Student's 95% interval of their mean, for each arm by itself: of twenty arms "
    "without an effect one is expected to miss 0. Parameters and MACs (multiply-accumulates for one image) are those "
    "of the network as it is deployed."
)


def make_study_report(plan: Plan, out: Path | None = None) -> Path:
    """Write report.html and report.md of a study as far as its runs are; the path of report.html.

    They go into `out`, with copies of each run's recipe, metrics, log and environment in `out/ARM/seed-S`, else into
    the study's folder, linked to the runs. Raises UsageError for a run folder that cannot be read.
    """
    from gan_kd.report import study_plots

    arms = read_arms(plan)
    folder = out or plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    if out is not None:
        _copy_evidence(plan, out)
    baseline = next(arm for arm in arms if arm.label == plan.study.baseline)
    control = next((arm for arm in arms if arm.label == plan.study.control), None)
    colours = {arm.label: PALETTE[i % len(PALETTE)] for i, arm in enumerate(arms)}
    drawn = study_plots.curves(arms, colours, folder / "map.png")
    compared = study_plots.differences(arms, baseline, colours, folder / "differences.png")
    blocks = [
        *([page.Text(plan.study.description)] if plan.study.description else []),
        page.Text(finding(arms, baseline), "lead"),
        *([page.Text(finding([arm for arm in arms if arm is not baseline], control), "lead")] if control else []),
        *(page.Text(text, "warning") for text in warnings(arms, baseline)),
        page.Section("Arms"),
        _arms(arms, baseline, control, colours),
        page.Text(REMARK.format(baseline=baseline.label) + _teacher(arms), "note"),
        *([_differences_figure(baseline)] if compared else []),
        page.Section("Seed by seed"),
        _seeds(plan, arms, baseline, folder, out),
        page.Section("Over the training"),
        _curves_figure() if drawn else page.Text("Not run here: no evaluation yet."),
        *_evidence(plan, arms, folder, out),
    ]
    return page.write(folder, f"Study {plan.name}", blocks)


def finding(arms: Sequence[Arm], baseline: Arm) -> str:
    """Which arms lie above the baseline after the last epoch, which below, which neither, and which are missing."""
    rivals = [(arm, arm.interval(baseline, LAST)) for arm in arms if arm is not baseline]
    known = [(arm.label, interval) for arm, interval in rivals if interval is not None]
    sure = [(label, interval) for label, interval in known if interval.seeds > 1]
    above = [_named(*one) for one in sure if one[1].low > 0]
    below = [_named(*one) for one in sure if one[1].high < 0]
    apart = [_named(*one) for one in sure if one[1].low <= 0 <= one[1].high]
    single = [_named(*one) for one in known if one[1].seeds == 1]
    missing = [arm.label for arm, interval in rivals if interval is None]
    if not known:
        return f"Not complete: no arm has a seed that is measured both in it and in {baseline.label}."
    lines = []
    if sure:
        whom = "; ".join(above) if above else "no arm"
        lines.append(f"Above {baseline.label} with 95% confidence, in mAP after the last epoch: {whom}.")
    if below:
        lines.append(f"Below it: {'; '.join(below)}.")
    if apart:
        lines.append(f"Not told apart from it: {'; '.join(apart)}.")
    if single:
        lines.append(f"Of one seed only, which says little, against {baseline.label}: {'; '.join(single)}.")
    if missing:
        lines.append(f"Not compared yet: {', '.join(missing)}.")
    return " ".join(lines)


def _named(label: str, interval: Interval) -> str:
    return f"{label} {_interval(interval)}"


def _interval(interval: Interval | None, between: str = " ") -> str:
    """Mean [low, high] in points, with this text between; the mean alone of one seed."""
    if interval is None:
        return DASH
    mean, low, high = (percent(value, sign=True) for value in interval[:3])
    return mean if isnan(interval.low) else f"{mean}{between}[{low}, {high}]"


def _arms(arms: Sequence[Arm], baseline: Arm, control: Arm | None, colours: dict[str, str]) -> page.Table:
    compared = [(baseline, LAST), (baseline, BEST), *([(control, LAST)] if control else [])]
    rows = []
    for arm in arms:
        own = "baseline" if arm is baseline else "control"
        rows.append((
            arm.label,
            *(mean_spread(arm.maps(which)) if arm.maps(which) else DASH for which in (LAST, BEST)),
            f"{len(arm.maps(LAST))} of {len(arm.cells)}",
            *(own if arm is other else _interval(arm.interval(other, which), "\n") for other, which in compared),
            count(arm.first("parameters")),
            count(arm.first("macs")),
            head_in_words(arm.first("head"), arm.first("adapters")),
            arm.status,
        ))  # fmt: skip
    differences = (f"− {other.label},\n{which} epoch" for other, which in compared)
    maps = ("mAP %,\nlast epoch", "mAP %,\nbest epoch")
    head = ("arm", *maps, "seeds", *differences, "parameters", "MACs", "head", "status")
    return page.Table(head, rows, "lrrr" + "r" * len(compared) + "rrll", colours)


def _teacher(arms: Sequence[Arm]) -> str:
    """What the teachers reach, as the arms measured them."""
    runs = [cell.run for arm in arms for cell in arm.cells if cell.run and cell.job.recipe.needs_teacher]
    maps = {run.networks["teacher"].map for run in runs} - {None}
    if not maps:
        return ""
    backbones = ", ".join(dict.fromkeys(str(run.recipe["teacher"]["backbone"]) for run in runs))
    return f" The teacher ({backbones}): {mean_spread(list(maps))} % mAP."


def _differences_figure(baseline: Arm) -> page.Figure:
    alt = f"Differences of mAP to {baseline.label}, a dot for each seed, a diamond with its interval for their mean"
    return page.Figure("differences.png", alt, "Circles: single seeds. Diamond and line: mean and its 95% interval.")


def _curves_figure() -> page.Figure:
    alt = "mAP over the epochs of training, a thin line for each seed, a thick one for the mean of each arm"
    return page.Figure("map.png", alt, "Thin: single seeds. Thick: their mean, where every seed was evaluated.")


def _seeds(plan: Plan, arms: Sequence[Arm], baseline: Arm, folder: Path, out: Path | None) -> page.Table:
    rows = []
    for cells in zip(*(arm.cells for arm in arms)):
        for arm, cell in zip(arms, cells):
            seed = cell.job.seed
            rows.append((
                str(seed), arm.label,
                _linked(percent(cell.map(LAST)), cell.job, "report/report.html", folder, out),
                _linked(percent(cell.map(BEST)), cell.job, "report/report.html", folder, out),
                *(_difference(arm, baseline, which, seed) for which in (LAST, BEST)),
                *(_linked(text, cell.job, file, folder, out) for text, file in _files(cell)),
                cell.status,
            ))  # fmt: skip
    head = (
        "seed", "arm", "mAP %, last epoch", "mAP %, best epoch", f"− {baseline.label}, last",
        f"− {baseline.label}, best", "log", "metrics", "recipe", "status",
    )  # fmt: skip
    return page.Table(head, rows, "rlrrrrllll")


def _difference(arm: Arm, baseline: Arm, which: str, seed: int) -> str:
    return "" if arm is baseline else percent(arm.differences(baseline, which).get(seed), sign=True)


def _files(cell: Cell) -> list[tuple[str, str]]:
    if cell.run is None:
        return [(DASH, "")] * 3
    return [("log", "train.log"), ("metrics", "metrics.jsonl"), ("recipe", "recipe.yaml")]


def _linked(text: str, job: Job, file: str, folder: Path, out: Path | None) -> str | page.Link:
    """`text` linked to a file of the run (its copy below `out`), or to the log where that is not there."""
    if text == DASH:
        return text
    at = job.folder if out is None else _copies(out, job)
    for name in (file, "train.log"):
        if (at / name).is_file():
            return page.Link(text, os.path.relpath(at / name, folder))
    return text


def _copies(out: Path, job: Job) -> Path:
    return out / job.label / f"seed-{job.seed}"


def _copy_evidence(plan: Plan, out: Path) -> None:
    """Each run's files as they are now, a finished run's once more at no harm."""
    for job in plan.all_jobs:
        for file in COPIED:
            if (job.folder / file).is_file():
                target = _copies(out, job) / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(job.folder / file, target)


def _evidence(plan: Plan, arms: Sequence[Arm], folder: Path, out: Path | None) -> list[page.Block]:
    """How it was made: the study's command and file, what the runs share, the command of every run."""
    runs = [cell.run for arm in arms for cell in arm.cells if cell.run]
    commands = [command for run in runs for command in run.commands]
    blocks: list[page.Block] = [
        page.Section("How it was made"),
        page.Code(plan.command, "sh"),
        page.Table(("", ""), _setting(arms, runs), "ll"),
    ]
    if plan.teacher is not None:
        trained = plan.teacher.read()
        commands = [*(trained.commands if trained else ()), *commands]
        links = [
            _linked(f"teacher's {text}", plan.teacher, file, folder, out)
            for text, file in _files(Cell(plan.teacher, trained))
        ]
        blocks.append(page.Links([link for link in links if isinstance(link, page.Link)]))
    return [
        *blocks,
        page.Code(plan.text, "yaml", "Study file"),
        page.Code("\n".join(commands), "sh", "Command of every run, again for each time that it was resumed"),
    ]


def _setting(arms: Sequence[Arm], runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What every arm trains, then what the runs share, each value once."""
    rows = []
    for arm in arms:
        job = arm.cells[0].job
        stages = [
            f"{name} ({network_in_words(stage.trains, job.recipe.distill.head)}, {stage.epochs} epochs)"
            for name, stage in job.recipe.stages.items()
        ]
        rows.append((f"arm {arm.label}", f"{job.recipe.name}: {', '.join(stages)}"))
    settings = [dict(setting(run)) for run in runs]
    for key in ("student ← teacher", "data", "batch", "metric", "machine"):
        rows.append((key, "\n".join(dict.fromkeys(values[key] for values in settings))))
    return [*rows, ("commit", ", ".join(commits(arms)) or "not recorded")]
