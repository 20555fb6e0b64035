"""What a study runs: one job a run, in order, checked before the first starts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gan_kd.errors import UsageError
from gan_kd.recipe.convert import nearest
from gan_kd.study.job import Job, make_job
from gan_kd.study.load import load, sets
from gan_kd.study.schema import Study
from gan_kd.study.search import SearchRuns, make_search
from gan_kd.system.paths import expanded
from gan_kd.system.shell import from_here

#: Label of the run that trains the study's teacher.
TEACHER = "teacher"


@dataclass(frozen=True)
class Plan:
    """A study over a folder of runs. `jobs`: seed by seed, all arms of a seed before the next.

    `chosen`: by arm, the overrides that a search chose, its own or another study's, empty without a search; None while
    its own search goes on, when the study has no jobs yet.
    """

    name: str
    text: str
    study: Study
    command: str
    prefix: Path
    teacher: Job | None
    jobs: tuple[Job, ...]
    search: SearchRuns | None
    chosen: Mapping[str, tuple[str, ...]] | None

    @property
    def all_jobs(self) -> tuple[Job, ...]:
        """In the order of training: the search, the teacher, the arms."""
        search = self.search.jobs if self.search else ()
        return (*search, self.teacher, *self.jobs) if self.teacher else (*search, *self.jobs)

    @property
    def due(self) -> tuple[Job, ...]:
        """What is trained now, in order, its teacher first: the search until it has chosen, then the study."""
        if self.search is not None and self.chosen is None:
            return self.search.jobs
        return (self.teacher, *self.jobs) if self.teacher else self.jobs

    @property
    def due_teacher(self) -> Job | None:
        """The one of `due` that trains the teacher of the others."""
        return self.search.teacher if self.search is not None and self.chosen is None else self.teacher

    @property
    def folder(self) -> Path:
        """Where the study keeps its lock, the runs' output and, without --out, its report."""
        return self.prefix / "studies" / self.name


def make_plan(name_or_path: str, overrides: Sequence[str], prefix: Path) -> Plan:
    """Load a study and the recipe of every run, with the study's overrides and then these.

    Overrides of teacher.weights replace the study's teacher. What a search has chosen so far is read from its runs.
    Raises UsageError for what does not load, for runs that would share a folder, and for a search that is not another's
    to choose by yet.
    """
    path, study = load(name_or_path)
    prefix = from_here(prefix)
    common = (*study.set, *overrides)
    teacher, arms = None, common
    if sets(common, "train.seed"):
        raise UsageError("--set train.seed: a study's seeds are those of its file; change seeds there")
    if study.teacher is not None and not sets(common, "teacher.weights"):
        teacher = make_job(TEACHER, study.teacher.recipe, study.teacher.seed, common, path, prefix)
        if not teacher.recipe.trains("teacher"):
            raise UsageError(f"{path}: teacher.recipe {study.teacher.recipe} trains no teacher; name one that does")
        arms = (*common, f"teacher.weights={json.dumps(str(teacher.teacher_weights))}")
    search = _search(path, study, common, prefix)
    chosen: Mapping[str, tuple[str, ...]] | None
    if study.chosen_by is not None:
        chosen = _chosen_by(path, study, overrides, prefix)
    else:
        chosen = search.chosen() if search else dict.fromkeys(study.arms, ())
    jobs = () if chosen is None else tuple(
        make_job(label, reference, seed, (*arms, *chosen[label]), path, prefix)
        for seed in study.seeds
        for label, reference in study.arms.items()
        if seed in study.seeds_of(label)
    )  # fmt: skip
    command = ["python", "-m", "gan_kd", "study", str(from_here(Path(name_or_path)))]
    for override in overrides:
        command += ["--set", override]
    plan = Plan(
        path.stem, path.read_text("utf-8"), study, shlex.join([*command, "--save-prefix", str(prefix)]), prefix,
        teacher, jobs, search, chosen,
    )  # fmt: skip
    _refuse_shared_folders(plan)
    return plan


def check_inputs(plan: Plan) -> None:
    """UsageError for every file and folder that a run would read and that is not there, and for a folder of a run
    that was started with another recipe."""
    teachers = [plan.teacher, plan.search.teacher if plan.search else None]
    made = {str(job.teacher_weights) for job in teachers if job}
    missing: dict[str, None] = {}
    for job in plan.all_jobs:
        missing.update(dict.fromkeys(text for text, path in _inputs(job, made) if not path.exists()))
    if missing:
        raise UsageError(f"not there: {', '.join(missing)}; put it in place, or name another with --set KEY=VALUE")
    for job in plan.all_jobs:
        if job.read() is None:
            continue
        changed = job.changes()
        if changed:
            raise UsageError(
                f"{job.folder} holds a run of another recipe than {job} has now ({'; '.join(changed[:3])}): run the "
                "study with the settings that it was started with, or choose another --save-prefix"
            )


def _search(path: Path, study: Study, common: Sequence[str], prefix: Path) -> SearchRuns | None:
    """The runs of the study's own search; None where it has none."""
    if study.search is None:
        return None
    if sets(common, "data.holdout"):
        raise UsageError(f"data.holdout: {path} has a search, which alone sets it; take it out of set and --set")
    own = [override for override in common if not sets([override], "teacher.weights")]
    search = make_search(study, study.search, path, own, prefix)
    if len(own) < len(common) and not search.settled:
        named = make_job("", study.arms[study.baseline], study.seeds[0], common, path, prefix).recipe.teacher.weights
        inner = str(search.teacher.teacher_weights) if search.teacher else None
        if named != inner:
            raise UsageError(
                f"teacher.weights: {named} may have seen the images that the search holds out; until the search is "
                f"finished leave it out, or name the search's own teacher{f', {inner}' if inner else ''}"
            )
    return search


def _chosen_by(path: Path, study: Study, overrides: Sequence[str], prefix: Path) -> Mapping[str, tuple[str, ...]]:
    """The settings that the search of study.chosen_by chose for the arms of the same labels."""
    name = str(study.chosen_by)
    where, other = load(name, path.parent)
    if other.search is None:
        raise UsageError(f"{path}: chosen_by {name}: that study has no search; name one that has")
    for label in study.arms:
        if label not in other.arms:
            raise UsageError(f"{path}: chosen_by {name}: its search has no arm {label}{nearest(label, other.arms)}")
    for seed in other.search.seeds:
        if seed in study.seeds:
            raise UsageError(
                f"{path}: chosen_by {name}: its search took seed {seed}, and settings must not be chosen on the "
                "study's seeds"
            )
    common = [override for override in (*other.set, *overrides) if not sets([override], "teacher.weights")]
    chosen = make_search(other, other.search, where, common, prefix).chosen()
    if chosen is None:
        raise UsageError(
            f"{path}: chosen_by {name}: its search in {prefix} is not finished; first run python -m gan_kd study {name}"
        )
    return chosen


def _inputs(job: Job, made: set[str]) -> list[tuple[str, Path]]:
    """Files and folders of the recipe, each with the key that names it, but for weights that a run makes."""
    recipe, found = job.recipe, []
    students = recipe.trains("baseline", "control", "distilled")
    for key, value, used in (
        ("teacher.weights", recipe.teacher.weights, recipe.needs_teacher and recipe.teacher.weights not in made),
        ("teacher.init", recipe.teacher.init, recipe.trains("teacher")),
        ("student.init", recipe.student.init, students),
        ("data.classes", recipe.data.classes, True),
    ):
        # Words (zoo, imagenet, voc, ...) are neither: a recipe's check sees to that.
        if used and isinstance(value, str) and ("/" in value or "." in value):
            found.append((f"{key} {value}", expanded(value)))
    if recipe.data.dataset != "demo":
        found.append((f"data.root {recipe.data.root}", expanded(recipe.data.root)))
    return found


def _refuse_shared_folders(plan: Plan) -> None:
    seen: dict[Path, Job] = {}
    for job in plan.all_jobs:
        other = seen.setdefault(job.folder, job)
        if other is not job:
            raise UsageError(
                f"{other.label} and {job.label} would both run in {job.folder}: recipe {job.recipe.name} is given "
                "twice, or two recipes have one name; each needs a name of its own"
            )
