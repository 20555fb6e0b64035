"""Which epoch is the best, and which teacher is good enough, where an mAP may be nan."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gan_kd.errors import RunError, UsageError
from gan_kd.recipe import Recipe, Stage, load
from gan_kd.training import run
from gan_kd.training.networks import require_good_teacher
from gan_kd.training.run import _Run
from gan_kd.training.trainer import Progress


@pytest.mark.parametrize(
    "maps, kept",
    [
        ([0.0, 3.0, 3.0, 2.0, 4.0], [0, 1, 4]),
        ([math.nan, math.nan], [0, 1]),
        ([math.nan, 0.0, math.nan, 1.0], [0, 1, 3]),
    ],
)
def test_nan_is_never_better_than_a_number_but_leaves_a_file(maps: list[float], kept: list[int]) -> None:
    progress = Progress()
    assert [index for index, value in enumerate(maps) if progress.improves("teacher", value)] == kept
    assert progress.best.get("teacher", -1.0) == max((value for value in maps if value == value), default=-1.0)
    assert progress.improves("baseline", 0.0)  # of another network


def test_a_teacher_below_the_bound_or_without_a_number_is_refused() -> None:
    recipe = load("demo", ["teacher.min_map=5"])
    require_good_teacher(recipe, 5.0)
    with pytest.raises(RunError, match="mAP of 4.99 is below teacher.min_map 5: "):
        require_good_teacher(recipe, 4.99)
    with pytest.raises(RunError, match="mAP of nan is no number: "):
        require_good_teacher(load("demo", ["teacher.min_map=0"]), math.nan)


def started(recipe: Recipe, folder: Path) -> Any:
    """A run as far as the loading of its teacher needs it."""
    state = SimpleNamespace(recipe=recipe, folder=folder, teacher=None, train_set=SimpleNamespace(classes=("cat",)))
    return state


def test_a_trained_teacher_that_is_gone_is_not_replaced_by_an_untrained_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="teacher/best.params: no such file"):
        _Run._require_teacher(started(load("demo"), tmp_path))


@pytest.mark.parametrize("first, loaded", [("baseline", False), ("distilled", True)])
def test_the_teacher_is_loaded_after_the_stages_that_train_it(
    first: str, loaded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student's own SSD may be trained first: the teacher of then would be an untrained one."""

    class Reached(Exception):
        pass

    def reach(*_: Any) -> None:
        raise Reached

    monkeypatch.setattr(run, "build_student", reach)
    recipe = load("demo")
    student = next(stage for stage in recipe.stages.values() if stage.trains == first)
    teacher = next(stage for stage in recipe.stages.values() if stage.trains == "teacher")
    recipe.stages.clear()
    stages: dict[str, Stage] = {"student": student, "teacher": teacher}
    recipe.stages.update(stages if first == "baseline" else dict(reversed(stages.items())))
    state = started(recipe, tmp_path)
    state.progress = Progress(stage=list(recipe.stages).index("student"))
    asked = []
    state._require_teacher = lambda: asked.append(True)
    with pytest.raises(Reached):
        _Run._build(state, student.trains)
    assert bool(asked) == loaded
