"""The arms of a study as their runs left them: mAP by seed, differences to the baseline, what disturbs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gan_kd.errors import UsageError
from gan_kd.report.run import Network, Run, leaves, number
from gan_kd.report.spread import Interval, interval95
from gan_kd.study.job import Job
from gan_kd.study.plan import Plan

#: The mAP that is compared: after the last epoch, which no test image chose, or of the best epoch, which they chose.
LAST, BEST = "last", "best"
#: Measures that eval.json may hold beside the recipe's own mAP.
OTHER_MEASURES = ("voc07", "voc10", "ap", "ap75")


@dataclass(frozen=True)
class Cell:
    """One run of an arm. `run`: as far as it is; None before its start."""

    job: Job
    run: Run | None

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Stages of the run as it was started, by name."""
        return self.run.recipe["stages"] if self.run else {}

    @property
    def network(self) -> Network | None:
        """The network that is deployed: the one that the last stage trains."""
        return self.run.networks[list(self.stages.values())[-1]["trains"]] if self.run else None

    @property
    def measured(self) -> bool:
        return self.run is not None and self.run.finished

    def map(self, which: str) -> float | None:
        """mAP in percent; None before the run is finished."""
        if self.network is None or not self.measured:
            return None
        return self.network.last_map if which == LAST else self.network.map

    def value(self, measure: str, which: str) -> float | None:
        """`map`, or another measure of the final evaluation, in percent; None where it was not taken."""
        if measure == "map":
            return self.map(which)
        if self.network is None or not self.measured:
            return None
        values = self.network.eval.get("also_last" if which == LAST else "also")
        return number(values.get(measure)) if isinstance(values, dict) else None

    @property
    def curve(self) -> dict[int, float]:
        """mAP in percent by the epochs that the network was trained, over all of its stages."""
        if self.network is None:
            return {}
        before, found = 0, {}
        for name, stage in self.stages.items():
            for record in self.network.evals:
                value = number(record.get("map"))
                if record["stage"] == name and value is not None:
                    found[before + record["epoch"]] = value
            before += stage["epochs"] if stage["trains"] == self.network.name else 0
        return found

    @property
    def images(self) -> int | None:
        """Images that the network was trained on, repeats counted; None before the run is finished.

        Batches in which a distiller warmed up (epoch 0 and below) are not the network's.
        """
        if self.run is None or self.network is None or not self.measured:
            return None
        batches, before = 0, 0
        for record in self.network.trains:
            if record["epoch"] > 0:
                batches += record["step"] - before
            before = record["step"]
        return batches * self.run.recipe["train"]["batch_size"]

    @property
    def status(self) -> str:
        """One phrase: measured, how far it is, or not run."""
        if self.run is None or self.network is None:
            return "not run"
        if self.measured:
            return "measured"
        records = [record for network in self.run.networks.values() for record in (*network.trains, *network.evals)]
        if not records:
            return "under way: no epoch yet"
        order = list(self.stages)
        last = max(records, key=lambda record: (order.index(record["stage"]), record["epoch"]))
        return f"under way: {last['stage']}, epoch {last['epoch']} of {self.stages[last['stage']]['epochs']}"


@dataclass(frozen=True)
class Arm:
    """A recipe over the study's seeds, in their order."""

    label: str
    cells: Sequence[Cell]

    def maps(self, which: str) -> list[float]:
        """mAP of the finished runs, %."""
        return [value for value in (cell.map(which) for cell in self.cells) if value is not None]

    def by_seed(self, measure: str, which: str = LAST) -> dict[int, float]:
        """A measure by seed, %, where it was taken."""
        found = ((cell.job.seed, cell.value(measure, which)) for cell in self.cells)
        return {seed: value for seed, value in found if value is not None}

    def differences(self, baseline: Arm, which: str) -> dict[int, float]:
        """By seed, mAP minus the baseline's of the same seed, in points, where both are measured."""
        known, base = self.by_seed("map", which), baseline.by_seed("map", which)
        return {seed: value - base[seed] for seed, value in known.items() if seed in base}

    def interval(self, baseline: Arm, which: str) -> Interval | None:
        """Mean of the differences with its 95% interval; None without any."""
        found = list(self.differences(baseline, which).values())
        return interval95(found) if found else None

    def first(self, key: str) -> Any:
        """`key` of the first eval.json or best.json of the deployed network that has it."""
        files = (part for cell in self.cells if cell.network for part in (cell.network.eval, cell.network.best))
        return next((part[key] for part in files if part.get(key) is not None), None)

    @property
    def status(self) -> str:
        """One phrase: all seeds measured, some of them begun, or none."""
        if all(cell.measured for cell in self.cells):
            return "measured"
        return "under way" if any(cell.run for cell in self.cells) else "not run"


def read_arms(plan: Plan) -> list[Arm]:
    """The arms in the order of the study's file. UsageError for a run folder that cannot be read."""
    cells = [Cell(job, job.read()) for job in plan.jobs]
    return [Arm(label, [cell for cell in cells if cell.job.label == label]) for label in plan.study.arms]


def seed_by_seed(arms: Sequence[Arm]) -> dict[int, list[tuple[Arm, Cell]]]:
    """The runs of each seed that has any, in the order of the arms."""
    found: dict[int, list[tuple[Arm, Cell]]] = {}
    for arm in arms:
        for cell in arm.cells:
            found.setdefault(cell.job.seed, []).append((arm, cell))
    return dict(sorted(found.items()))


def warnings(arms: Sequence[Arm], baseline: Arm) -> list[str]:
    """What makes differences between the arms say something else than their methods do."""
    found = [problem for arm in arms for cell in arm.cells for problem in _changed(cell)]
    for arm in arms:
        apart = _apart(baseline.cells[0].job, arm.cells[0].job)
        if apart:
            found.append(f"Not the same schedule: {arm.label} differs from {baseline.label} in {'; '.join(apart)}.")
    images = {arm.label: sorted({cell.images for cell in arm.cells if cell.images is not None}) for arm in arms}
    if len({count for counts in images.values() for count in counts}) > 1:
        seen = "; ".join(f"{label} {', '.join(f'{n:,}' for n in counts)}" for label, counts in images.items() if counts)
        found.append(f"Not the same schedule: images seen in training are {seen}.")
    for seed, cells in seed_by_seed(arms).items():
        if len(set(_values((cell.run for _, cell in cells), "teacher", "sha256"))) > 1:
            found.append(f"The arms of seed {seed} learned from different teachers.")
    if len(set(commits(arms))) > 1:
        found.append(f"These runs were made by different commits: {', '.join(commits(arms))}.")
    for arm in arms:
        for cell in arm.cells:
            found += [f"{cell.job}: {text}." for text in (cell.run.problems if cell.run else ())]
    return found


def commits(arms: Sequence[Arm]) -> list[str]:
    """Every commit that made a part of these runs, once."""
    runs = [cell.run for arm in arms for cell in arm.cells if cell.run]
    noted = [commit for run in runs for commit in (*run.environment.get("commits", ()), run.first("commit")) if commit]
    return list(dict.fromkeys(noted))


def _changed(cell: Cell) -> list[str]:
    """A run made with another recipe than the study gives now: its report may be written, training is refused."""
    if cell.run is None:
        return []
    try:
        changed = cell.job.changes()
    except UsageError:
        return [f"{cell.job}: its recipe.yaml does not load with this version, and was not compared with the study's."]
    if not changed:
        return []
    return [f"{cell.job} was made with another recipe than the study gives: now {'; '.join(changed[:3])}."]


def _apart(one: Job, other: Job) -> list[str]:
    """Keys of what arms should share in which two differ, with both values."""
    before, after = dict(leaves(_shared(one))), dict(leaves(_shared(other)))
    keys = dict.fromkeys((*before, *after))
    return [f"{key} ({after.get(key)}, not {before.get(key)})" for key in keys if before.get(key) != after.get(key)]


def _shared(job: Job) -> dict[str, Any]:
    """What arms should share: data, student, batch, and the schedule of the deployed network stage by stage."""
    plain = dataclasses.asdict(job.recipe)
    del plain["data"]["root"], plain["eval"]["batch_size"]
    stages = [stage for stage in plain["stages"].values() if stage["trains"] == job.network]
    schedule = [{key: stage[key] for key in ("epochs", "optimizer", "schedule")} for stage in stages]
    return {
        **{key: plain[key] for key in ("data", "student", "eval")},
        "train": {key: plain["train"][key] for key in ("batch_size", "val_interval")},
        **{f"stage {k}": stage for k, stage in enumerate(schedule, 1)},
    }


def _values(runs: Iterable[Run | None], network: str, key: str) -> list[Any]:
    """`key` of best.json of a network in the runs that have it."""
    return [run.networks[network].best[key] for run in runs if run and key in run.networks[network].best]
