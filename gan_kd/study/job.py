"""One run of a study: what `train` is given for it, and what it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gan_kd.recipe import Recipe, changes
from gan_kd.recipe import load as load_recipe
from gan_kd.recipe.load import find
from gan_kd.report.run import Run, read_run
from gan_kd.system.shell import from_here

#: In the folder of a trial that diverged, with the sentence that the run ended with.
DIVERGED = "diverged.txt"


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

    @property
    def teacher_weights(self) -> Path:
        """Best parameters of the teacher that this run trains."""
        return self.folder / "teacher" / "best.params"

    @property
    def diverged(self) -> str | None:
        """Why a trial ended without a number, in the run's words; None where it did not."""
        path = self.folder / DIVERGED
        return path.read_text("utf-8").strip() if path.is_file() else None

    @property
    def settled(self) -> bool:
        """Whether it is finished or diverged."""
        run = self.read()
        return bool(self.diverged) or (run is not None and run.finished)

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

    def last_map(self) -> float | None:
        """mAP in percent after the last epoch of a finished run; None before."""
        run = self.read()
        return run.networks[self.network].last_map if run is not None and run.finished else None

    def changes(self) -> list[str]:
        """What the recipe of this job has that the run in its folder was not started with; both must be there."""
        return changes(load_recipe(str(self.folder / "recipe.yaml")), self.recipe)


def make_job(label: str, reference: str, seed: int, overrides: Sequence[str], study: Path, prefix: Path) -> Job:
    """The job of a recipe that the file `study` names. UsageError for a recipe that does not load."""
    found = find(reference, study.parent)
    if reference.endswith((".yaml", ".yml")):
        reference = str(from_here(found))
    recipe = load_recipe(reference, [f"train.seed={seed}", *overrides])
    return Job(label, reference, tuple(overrides), recipe, prefix)
