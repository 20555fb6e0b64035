"""The record of a study's runs beside its report: small files by which it goes on where the runs' folders are gone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from gan_kd.errors import UsageError
from gan_kd.recipe import changes
from gan_kd.recipe.load import load
from gan_kd.report.run import NETWORKS
from gan_kd.report.single import EVIDENCE
from gan_kd.study.job import DIVERGED, Job
from gan_kd.study.plan import Plan
from gan_kd.study.search import SEARCH
from gan_kd.system.files import write_folder, write_json
from gan_kd.system.untrusted import read_json

_COPIED = (*EVIDENCE, "environment.json", DIVERGED)
# What is known of each network of a run; in a record NETWORK-eval.json.
_KNOWN = ("eval.json", "best.json")


def record_of(out: Path, job: Job) -> Path:
    """Folder of a run's record below a report's."""
    searched = job.label.startswith(f"{SEARCH}/")
    return out / (f"{job.label}-seed-{job.seed}" if searched else f"{job.label}/seed-{job.seed}")


def keep(plan: Plan, out: Path) -> None:
    """Each run's files as they are now, a finished run's once more at no harm; no weights and no detections."""
    for job in plan.all_jobs:
        record = record_of(out, job)
        for file in _COPIED:
            if (job.folder / file).is_file():
                record.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(job.folder / file, record / file)
        for network, name in product(NETWORKS, _KNOWN):
            try:
                found = read_json(job.folder / network / name)
            except (OSError, ValueError):  # not there yet, or damaged, which the report says
                continue
            kept = {key: value for key, value in found.items() if key != "samples"}
            write_json(record / f"{network}-{name}", kept)


def take_up(plan: Plan, out: Path) -> int:
    """Put recorded runs back whose folders are gone, so that they count as finished; how many.

    A record of another recipe stays where it is. A teacher, whose weights are in no record, is put back only where
    every run that may learn from it is finished: else it has to be trained again.
    """
    groups: list[tuple[Job | None, Sequence[Job]]] = [(plan.teacher, plan.jobs)] if plan.jobs else []
    if plan.search is not None:
        search = plan.search
        groups.append((search.teacher, [job for job in search.jobs if job is not search.teacher]))
    taken = 0
    for teacher, jobs in groups:
        taken += sum(_put_back(job, record_of(out, job)) for job in jobs)
        if teacher is not None and all(job.settled for job in jobs):
            taken += _put_back(teacher, record_of(out, teacher))
    return taken


def _put_back(job: Job, record: Path) -> bool:
    finished = (record / DIVERGED).is_file() or (record / f"{job.network}-eval.json").is_file()
    if job.folder.exists() or not finished or not _is_of(job, record):
        return False

    def fill(folder: Path) -> None:
        files = {file: file for file in _COPIED}
        files.update({f"{network}-{name}": f"{network}/{name}" for network, name in product(NETWORKS, _KNOWN)})
        for source, target in files.items():
            if (record / source).is_file():
                (folder / target).parent.mkdir(exist_ok=True)
                shutil.copyfile(record / source, folder / target)

    write_folder(job.folder, fill)
    return True


def _is_of(job: Job, record: Path) -> bool:
    """Whether a record is of the recipe that the job has now."""
    try:
        return not changes(load(str(record / "recipe.yaml")), job.recipe)
    except UsageError:
        return False
