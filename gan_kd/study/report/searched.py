"""How the settings of a study's arms were chosen: every trial of its search, with what each reached."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gan_kd.report import page
from gan_kd.report.single import DASH, percent
from gan_kd.study.job import Job
from gan_kd.study.plan import Plan
from gan_kd.study.report.arms import Cell
from gan_kd.study.report.evidence import files, linked
from gan_kd.study.schema import Search
from gan_kd.study.search import SearchRuns, Trial


def searched(plan: Plan, folder: Path, out: Path | None) -> list[page.Block]:
    """The section, links going from `folder` to the runs or to their copies below `out`; nothing without a search."""
    if plan.search is not None and plan.study.search is not None:
        return [page.Section("Settings searched"), *_trials(plan.search, plan.study.search, folder, out)]
    if plan.study.chosen_by is None or plan.chosen is None:
        return []
    rows = [(arm, " ".join(overrides)) for arm, overrides in plan.chosen.items() if arm in plan.study.arms]
    return [
        page.Section("Settings searched"),
        page.Text(f"The search of the study {Path(plan.study.chosen_by).stem} chose these settings."),
        page.Table(("arm", "settings"), rows, "ll"),
    ]


def _trials(runs: SearchRuns, search: Search, folder: Path, out: Path | None) -> list[page.Block]:
    text = (
        f"Every trial was trained without one of every {search.holdout} training images and measured on those "
        f"(data.holdout={search.holdout}), with seeds that are none of the study's. The highest mean of mAP after the "
        "last epoch was chosen for each arm, of equal ones the first; every arm had as many trials."
        + (f" All trials had {' '.join(search.set)}, unlike the study's runs." if search.set else "")
    )
    head = ("arm", "trial", "settings", *(f"mAP %, seed {seed}" for seed in search.seeds), "mean", "chosen", "runs")
    rows = [_row(runs, trial, folder, out) for trial in runs.trials]
    diverged = [f"{job} diverged, and counts as the worst: {job.diverged}" for job in runs.jobs if job.diverged]
    return [
        page.Text(text),
        *_teacher(runs.teacher, folder, out),
        page.Table(head, rows, "lrl" + "r" * (len(search.seeds) + 1) + "ll"),
        *(page.Text(line, "note") for line in diverged),
    ]


def _teacher(teacher: Job | None, folder: Path, out: Path | None) -> list[page.Block]:
    if teacher is None:
        return []
    value = teacher.last_map()
    told = "not measured yet" if value is None else f"mAP {percent(value)} % after the last epoch"
    link = linked("log of its training", teacher, "train.log", folder, out)
    return [
        page.Text(f"Its teacher, {teacher.recipe.name}, was trained without those images as well: {told}."),
        *([page.Links([link])] if isinstance(link, page.Link) else []),
    ]


def _row(runs: SearchRuns, trial: Trial, folder: Path, out: Path | None) -> list[page.Cell]:
    maps = [linked(_number(job), job, "train.log", folder, out) for job in trial.jobs]
    chosen = "chosen" if runs.best(trial.arm) is trial else ""
    return [
        trial.arm, str(trial.number), " ".join(trial.overrides), *maps, percent(trial.score), chosen,
        [part for job in trial.jobs for part in _evidence(job, folder, out)],
    ]  # fmt: skip


def _evidence(job: Job, folder: Path, out: Path | None) -> Iterator[str | page.Link]:
    """Links to the files of a run, a line each run."""
    for text, file in files(Cell(job, job.read())):
        part = linked(text, job, file, folder, out)
        if isinstance(part, page.Link):
            yield from (part, "\n" if file == "recipe.yaml" else " ")


def _number(job: Job) -> str:
    if job.diverged:
        return "diverged"
    value = job.last_map()
    return DASH if value is None else percent(value)
