"""What a study runs: one job a run, in order, checked before the first starts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gan_kd.errors import UsageError
from gan_kd.recipe import Recipe, changes
from gan_kd.recipe import load as load_recipe
from gan_kd.recipe.load import find, parse_override
from gan_kd.report.run import Run, read_run
from gan_kd.shell import from_here
from gan_kd.study.load import load
from gan_kd.study.schema import Study

#: Label of the run that trains the study's teacher.
TEACHER = "teacher"


@dataclass(frozen=True)
class Job:
    """One run. `reference` and `overrides`: what `train` is given; `recipe`: what it makes of them."""

    label: str
    reference: str
    overrides: tuple[str, ...]
    recipe: Recipe
    prefix: Path

    @property
    def seed(self) -> int:
        return self.recipe.train.seed

    @property
    def folder(self) -> Path:
        """Where `train` puts the run."""
        return self.prefix / self.recipe.name / str(self.seed)

    @property
    def network(self) -> str:
        """What the run is for: the network that its last stage trains."""
        return list(self.recipe.stages.values())[-1].trains

    def __str__(self) -> str:
        return f"{self.label}, seed {self.seed}"

    def arguments(self, resume: bool) -> list[str]:
        """The command line after `python`."""
        command = ["-m", "gan_kd", "train", "--recipe", self.reference, "--seed", str(self.seed)]
        for override in self.overrides:
            command += ["--set", override]
        return [*command, "--save-prefix", str(self.prefix), *(["--resume"] if resume else [])]

    def read(self) -> Run | None:
        """The run as far as it is; None before its start. UsageError where its folder cannot be read."""
        return read_run(self.folder) if (self.folder / "recipe.yaml").is_file() else None

    def changes(self) -> list[str]:
        """What the recipe of this job has that the run in its folder was not started with; both must be there."""
        return changes(load_recipe(str(self.folder / "recipe.yaml")), self.recipe)


@dataclass(frozen=True)
class Plan:
    """A study over a folder of runs. `jobs`: seed by seed, all arms of a seed before the next."""

    name: str
    text: str
    study: Study
    command: str
    prefix: Path
    teacher: Job | None
    jobs: tuple[Job, ...]

    @property
    def all_jobs(self) -> tuple[Job, ...]:
        """In the order of training, the teacher first."""
        return (self.teacher, *self.jobs) if self.teacher else self.jobs

    @property
    def folder(self) -> Path:
        """Where the study keeps its lock, the runs' output and, without --out, its report."""
        return self.prefix / "studies" / self.name


def make_plan(name_or_path: str, overrides: Sequence[str], prefix: Path) -> Plan:
    """Load a study and the recipe of every run, with the study's overrides and then these.

    Overrides of teacher.weights replace the study's teacher. Raises UsageError for what does not load, and for runs
    that would share a folder.
    """
    path, study = load(name_or_path)
    prefix = from_here(prefix)
    common = (*study.set, *overrides)
    teacher, arms = None, common
    if "seed" in _keys(common, "train"):
        raise UsageError("--set train.seed: a study's seeds are those of its file; change seeds there")
    if study.teacher is not None and "weights" not in _keys(common, "teacher"):
        teacher = _job(TEACHER, study.teacher.recipe, study.teacher.seed, common, path, prefix)
        if not teacher.recipe.trains("teacher"):
            raise UsageError(f"{path}: teacher.recipe {study.teacher.recipe} trains no teacher; name one that does")
        arms = (*common, f"teacher.weights={json.dumps(str(teacher.folder / 'teacher' / 'best.params'))}")
    jobs = tuple(
        _job(label, reference, seed, arms, path, prefix)
        for seed in study.seeds
        for label, reference in study.arms.items()
    )
    command = ["python", "-m", "gan_kd", "study", str(from_here(Path(name_or_path)))]
    for override in overrides:
        command += ["--set", override]
    plan = Plan(
        path.stem, path.read_text("utf-8"), study, shlex.join([*command, "--save-prefix", str(prefix)]), prefix,
        teacher, jobs,
    )  # fmt: skip
    _refuse_shared_folders(plan)
    return plan


def check_inputs(plan: Plan) -> None:
    """UsageError for every file and folder that a run would read and that is not there, and for a folder of a run
    that was started with another recipe."""
    missing: dict[str, None] = {}
    for job in plan.all_jobs:
        missing.update(dict.fromkeys(text for text, path in _inputs(job, plan.teacher) if not path.exists()))
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


def _job(label: str, reference: str, seed: int, overrides: tuple[str, ...], study: Path, prefix: Path) -> Job:
    found = find(reference, study.parent)
    if reference.endswith((".yaml", ".yml")):
        reference = str(from_here(found))
    recipe = load_recipe(reference, [f"train.seed={seed}", *overrides])
    return Job(label, reference, overrides, recipe, prefix)


def _keys(overrides: Sequence[str], section: str) -> set[str]:
    """Keys of a recipe's section that the overrides set."""
    found: set[str] = set()
    for override in overrides:
        values = parse_override(override).get(section)
        found |= values.keys() if isinstance(values, dict) else set()
    return found


def _inputs(job: Job, teacher: Job | None) -> list[tuple[str, Path]]:
    """Files and folders of the recipe, each with the key that names it."""
    recipe, found = job.recipe, []
    students = recipe.trains("baseline", "control", "distilled")
    for key, value, used in (
        ("teacher.weights", recipe.teacher.weights, recipe.needs_teacher and teacher is None),
        ("teacher.init", recipe.teacher.init, recipe.trains("teacher")),
        ("student.init", recipe.student.init, students),
        ("data.classes", recipe.data.classes, True),
    ):
        # Words (zoo, imagenet, voc, ...) are neither: a recipe's check sees to that.
        if used and isinstance(value, str) and ("/" in value or "." in value):
            found.append((f"{key} {value}", Path(value).expanduser()))
    if recipe.data.dataset != "demo":
        found.append((f"data.root {recipe.data.root}", Path(recipe.data.root).expanduser()))
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
