"""Which runs measure which cell of the published tables, and which baseline each is paired with.

A run belongs to the cell that `published` in its recipe names, and its baseline to the cell `none` of the same
row. It counts as run as published where its recipe equals the cell's shipped one in all that makes the network:
data, student, training, evaluation and the stages of that network; for the distilled student also the teacher,
the distillation and the teacher's stages. The cell's recipe is the one of the shortest name, to which others of
the same cell (with head inheritance, say) add. What recipe_hash leaves out (devices, workers, where the data
lie) changes neither parameters nor mAP and is not looked at. These may differ, and the page names them:

- train.seed; train.batch_size, since paper and log differ in the number of GPUs and 64 images need not fit;
  train.val_interval, by which fewer epochs stand for choice as the best;
- a file where the shipped recipe downloads: student.init for imagenet, teacher.weights for zoo. The bound
  teacher.min_map, which may not differ, stands for the teacher's quality.

Any other difference, in data, size, epochs or one setting, makes a run a small one, whose number is not
comparable with the published one. Keys are compared instead of the hash that a run noted, since a knob that is
added to the recipe later changes every hash, but no run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gan_kd.recipe import Published, Recipe, from_dict, hashed, load, names
from gan_kd.report.published import TABLES, lookup
from gan_kd.report.run import Run

FREE = ("train.seed", "train.batch_size", "train.val_interval")
_DOWNLOADS = {"student.init": "imagenet", "teacher.weights": "zoo"}
_WORDS = ("imagenet", "random", "zoo")
_ABSENT = "not there"
_FAMILY = ("detector", "faster_rcnn")  # of a recipe; absent where they have their defaults

Differences = dict[str, tuple[Any, Any]]  # by key: here, in the shipped recipe


class Source(NamedTuple):
    """A run, its report.html, and the folder with its recipe and log (its own or the published copy)."""

    run: Run
    report: Path
    evidence: Path


@dataclass(frozen=True)
class Measurement:
    """A network of a run in a cell. `other`: what makes it small; `free`: what may differ from the recipe."""

    source: Source
    recipe: Recipe
    network: str
    other: Differences
    free: Differences

    @property
    def map(self) -> float | None:
        """mAP (AP on COCO) of the final evaluation in percent, None before it."""
        return self.source.run.networks[self.network].final_map

    @property
    def seed(self) -> int:
        return self.recipe.train.seed

    @property
    def of_none(self) -> bool:
        """Whether its recipe is one of column none."""
        return self.recipe.published is not None and self.recipe.published.column == "none"


@dataclass(frozen=True)
class Group:
    """Runs of a cell under the same conditions, one a seed; `spare`: further ones of these seeds, not counted."""

    runs: list[Measurement]
    spare: list[Measurement]

    @property
    def other(self) -> Differences:
        """What makes these runs small ones; empty where they were run as published."""
        return self.runs[0].other

    @property
    def status(self) -> str:
        """measured, measured small, or under way: no run evaluated to the end."""
        if all(run.map is None for run in self.runs):
            return "under way"
        return "measured small" if self.other else "measured"


@dataclass
class Cell:
    """A published number in percent, the shipped recipe for it, and what was run, as published first."""

    table: int
    row: str
    column: str
    published: float
    recipe: Recipe
    groups: list[Group] = field(default_factory=list)

    @property
    def gain(self) -> float | None:
        """Published gain on the published baseline in points, None for the baseline."""
        alone = lookup(self.table, self.row)
        return None if self.column == "none" or alone is None else self.published - alone

    @property
    def status(self) -> str:
        """Of its best group; `not run here` without one."""
        order = ("measured", "measured small", "under way", "not run here")
        return min((group.status for group in self.groups), key=order.index, default=order[-1])


def collect(sources: Sequence[Source]) -> list[Cell]:
    """Every published cell of the paper's tables in their order, with the runs that measure it."""
    shipped = [load(name) for name in names()]
    runs = [(source, from_dict(source.run.recipe)) for source in sources if source.run.recipe.get("published")]
    cells = []
    for table in (1, 2, 3):
        for row, values in TABLES[table].rows.items():
            for column, value in values.items():
                cell = Cell(table, row, column, value, _shipped(shipped, table, row, column))
                cell.groups = _groups([found for run in runs for found in _measurements(cell, *run)])
                cells.append(cell)
    return cells


def baseline(run: Measurement, alone: Sequence[Measurement]) -> Measurement | None:
    """The evaluated baseline to subtract from a distilled student: of the same run, else one of column none.

    alone: the measurements of the row's column none. It has to agree in seed, data, student, training, evaluation,
    and in the schedule: epochs, optimiser and learning rate of every stage.
    """
    alike = [other for other in alone if other.map is not None and _schedule(other) == _schedule(run)]
    own = [other for other in alike if other.source is run.source]
    return next(iter(own + [other for other in alike if other.of_none]), None)


def _network(column: str) -> str:
    return "baseline" if column == "none" else "distilled"


def _cell(place: Published) -> tuple[int, str] | None:
    """Table and row; None in another paper's tables."""
    return (place.table, place.row) if place.paper == "gan_kd" else None


def _shipped(recipes: Sequence[Recipe], table: int, row: str, column: str) -> Recipe:
    """The recipe of a cell. The student alone is trained by every recipe of its row, in the same way."""
    fitting = []
    for recipe in recipes:
        place = recipe.published
        if place is None or _cell(place) != (table, row) or not recipe.trains(_network(column)):
            continue
        if column in ("none", place.column):
            fitting.append(recipe)
    return min(fitting, key=lambda recipe: (len(recipe.name), recipe.name))


def _measurements(cell: Cell, source: Source, recipe: Recipe) -> Iterator[Measurement]:
    """The run's network that belongs into the cell, if it has one."""
    place, network = recipe.published, _network(cell.column)
    if place is None or _cell(place) != (cell.table, cell.row):
        return
    if cell.column in ("none", place.column) and source.run.networks[network].shown:
        found = dict(_different(_conditions(recipe, network), _conditions(cell.recipe, network)))
        free = {key: values for key, values in found.items() if _may_differ(key, *values)}
        other = {key: values for key, values in found.items() if key not in free}
        yield Measurement(source, recipe, network, other, free)


def _groups(found: Sequence[Measurement]) -> list[Group]:
    """By conditions, those of the published number first. Of several runs of a seed the first in order counts.

    The order knows no mAP: evaluated ones first, then recipes of column none, then by the recipe's name.
    """
    ordered = sorted(found, key=lambda run: (run.seed, run.map is None, not run.of_none, run.recipe.name))
    by_conditions: dict[str, Group] = {}
    for run in sorted(ordered, key=lambda run: len(run.other)):
        conditions = repr(sorted((key, repr(here)) for key, (here, _) in run.other.items()))
        group = by_conditions.setdefault(conditions, Group([], []))
        taken = any(run.seed == other.seed for other in group.runs)
        (group.spare if taken else group.runs).append(run)
    return list(by_conditions.values())


def _conditions(recipe: Recipe, network: str) -> dict[str, Any]:
    """What makes a network of a recipe, as nested plain values."""
    values = hashed(recipe)
    trains = ("baseline",) if network == "baseline" else ("teacher", "distilled")
    parts = [part for part in _FAMILY if part in values] + ["data", "student", "train", "eval"]
    parts += [] if network == "baseline" else ["teacher", "distill"]
    stages = {name: stage for name, stage in values["stages"] if stage["trains"] in trains}
    return {**{part: values[part] for part in parts}, "stages": stages}


def _different(here: Any, shipped: Any, path: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(here, dict) and isinstance(shipped, dict):
        if here.keys() == shipped.keys() and list(here) != list(shipped):
            yield f"order of {path}", (list(here), list(shipped))
        for key in {**shipped, **here}:
            yield from _different(here.get(key, _ABSENT), shipped.get(key, _ABSENT), f"{path}.{key}" if path else key)
    elif here != shipped:
        yield path, (here, shipped)


def _may_differ(key: str, here: Any, shipped: Any) -> bool:
    downloaded = key in _DOWNLOADS and shipped == _DOWNLOADS[key]
    return key in FREE or (downloaded and isinstance(here, str) and here not in _WORDS)


def _schedule(run: Measurement) -> tuple[Any, ...]:
    """What a distilled student and its baseline share: all but the method."""
    values = hashed(run.recipe)
    stages = [stage for _, stage in values["stages"] if stage["trains"] == run.network]
    steps = [{key: stage[key] for key in ("epochs", "optimizer", "schedule")} for stage in stages]
    parts = (*_FAMILY, "data", "student", "train", "eval")
    return (*(values.get(part) for part in parts), steps)
