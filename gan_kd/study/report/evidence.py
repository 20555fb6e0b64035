"""What the numbers of a study come from: files of its runs, linked or copied, commands and settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gan_kd.recipe import network_in_words
from gan_kd.report import page
from gan_kd.report.run import Run
from gan_kd.report.single import DASH, setting
from gan_kd.study.job import Job
from gan_kd.study.plan import Plan
from gan_kd.study.record import record_of
from gan_kd.study.report.arms import Arm, Cell, commits


def files(cell: Cell) -> list[tuple[str, str]]:
    """Texts of the links to a run's files, and the files."""
    if cell.run is None:
        return [(DASH, "")] * 3
    return [("log", "train.log"), ("metrics", "metrics.jsonl"), ("recipe", "recipe.yaml")]


def linked(text: str, job: Job, file: str, folder: Path, out: Path | None) -> str | page.Link:
    """`text` linked to a file of the run (its copy below `out`), or to the log where that is not there."""
    if text == DASH:
        return text
    at = job.folder if out is None else record_of(out, job)
    for name in (file, "train.log"):
        if (at / name).is_file():
            return page.Link(text, os.path.relpath(at / name, folder))
    return text


def evidence(plan: Plan, arms: Sequence[Arm], folder: Path, out: Path | None) -> list[page.Block]:
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
            linked(f"teacher's {text}", plan.teacher, file, folder, out)
            for text, file in files(Cell(plan.teacher, trained))
        ]
        blocks.append(page.Links([link for link in links if isinstance(link, page.Link)]))
    if plan.search is not None:
        tried = [run for run in (job.read() for job in plan.search.jobs) if run]
        commands = [*(command for run in tried for command in run.commands), *commands]
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
