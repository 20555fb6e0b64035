"""The search of a study: every arm's settings tried on an inner split, and the best of each arm."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gan_kd.errors import UsageError
from gan_kd.recipe import recipe_hash
from gan_kd.study.job import Job, make_job
from gan_kd.study.schema import Search, Study

#: First part of the labels of a search's runs, which no arm may have.
SEARCH = "search"


@dataclass(frozen=True)
class Trial:
    """Settings of an arm, counted from 1, and their runs, one a seed of the search."""

    arm: str
    number: int
    overrides: tuple[str, ...]
    jobs: tuple[Job, ...]

    @property
    def settled(self) -> bool:
        """Whether every run of it is finished or diverged."""
        return all(job.settled for job in self.jobs)

    @property
    def score(self) -> float | None:
        """Mean over the seeds of mAP after the last epoch, percent; None where a run has no number."""
        maps = [None if job.diverged else job.last_map() for job in self.jobs]
        known = [value for value in maps if value is not None]
        return statistics.fmean(known) if len(known) == len(maps) else None


@dataclass(frozen=True)
class SearchRuns:
    """The runs of a search. `teacher`: trained first, without the images held out; None where no run needs one."""

    teacher: Job | None
    trials: tuple[Trial, ...]

    @property
    def jobs(self) -> tuple[Job, ...]:
        """In the order of training, the teacher first."""
        runs = tuple(job for trial in self.trials for job in trial.jobs)
        return (self.teacher, *runs) if self.teacher else runs

    @property
    def settled(self) -> bool:
        """Whether every trial has its number, or diverged."""
        return all(trial.settled for trial in self.trials)

    def of(self, arm: str) -> list[Trial]:
        """The trials of an arm."""
        return [trial for trial in self.trials if trial.arm == arm]

    def best(self, arm: str) -> Trial | None:
        """The trial of the highest mean, of equal ones the first; None before the search is settled, or if all failed.

        A trial with a run that diverged counts as the worst.
        """
        scores = [(trial, trial.score) for trial in self.of(arm)]
        known = [(trial, score) for trial, score in scores if score is not None]
        return max(known, key=lambda one: one[1])[0] if known and self.settled else None

    def hopeless(self) -> list[str]:
        """Arms none of whose trials has a number, once the search is settled."""
        arms = dict.fromkeys(trial.arm for trial in self.trials)
        return [arm for arm in arms if self.settled and self.best(arm) is None]

    def chosen(self) -> dict[str, tuple[str, ...]] | None:
        """The overrides of every arm's best trial; None as long as an arm has none."""
        best = {trial.arm: self.best(trial.arm) for trial in self.trials}
        found = {arm: trial.overrides for arm, trial in best.items() if trial is not None}
        return found if len(found) == len(best) else None


def make_search(study: Study, search: Search, path: Path, common: Sequence[str], prefix: Path) -> SearchRuns:
    """The runs of a search, with the study's teacher trained anew without the images held out.

    common: overrides of every run. UsageError where a trial does not load, where one is given twice, and where its
    teacher is a file, which may have seen the images held out.
    """
    held, teacher = [*common, f"data.holdout={search.holdout}"], None
    if study.teacher is not None:
        plain = make_job("", study.teacher.recipe, study.teacher.seed, common, path, prefix)
        name = f"name={json.dumps(f'{plain.recipe.name}-inner')}"
        teacher = make_job(
            f"{SEARCH}/teacher", study.teacher.recipe, study.teacher.seed, [*held, name], path, prefix
        )  # fmt: skip
        held.append(f"teacher.weights={json.dumps(str(teacher.teacher_weights))}")
    held += search.set
    trials = [
        _trial(arm, number, tuple(shlex.split(text)), study.arms[arm], search.seeds, held, path, prefix)
        for arm in study.arms
        for number, text in enumerate(search.trials[arm], 1)
    ]
    _check(trials, teacher)
    return SearchRuns(teacher, tuple(trials))


def _trial(
    arm: str,
    number: int,
    overrides: tuple[str, ...],
    reference: str,
    seeds: Sequence[int],
    held: Sequence[str],
    path: Path,
    prefix: Path,
) -> Trial:
    label = f"{SEARCH}/{arm}/trial-{number}"
    name = make_job(label, reference, seeds[0], [*held, *overrides], path, prefix).recipe.name
    given = [*held, *overrides, f"name={json.dumps(f'{name}/search-{number}')}"]
    return Trial(arm, number, overrides, tuple(make_job(label, reference, seed, given, path, prefix) for seed in seeds))


def _check(trials: Sequence[Trial], teacher: Job | None) -> None:
    seen: dict[tuple[str, str], Trial] = {}
    for trial in trials:
        recipe = trial.jobs[0].recipe
        first = seen.setdefault((trial.arm, recipe_hash(recipe)), trial)
        if first is not trial:
            raise UsageError(
                f"search.trials.{trial.arm}: trials {first.number} and {trial.number} are the same settings; "
                "give one of them others"
            )
        if teacher is None and recipe.needs_teacher and recipe.teacher.weights is not None:
            raise UsageError(
                f"search.trials.{trial.arm}: its teacher {recipe.teacher.weights} may have seen the images held out; "
                "name a recipe under teacher, which the search trains without them"
            )
