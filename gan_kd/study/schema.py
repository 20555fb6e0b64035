"""The typed study: every key with its meaning, read and checked as a recipe is."""

from __future__ import annotations

from dataclasses import dataclass

from gan_kd.recipe.knob import knob


@dataclass(frozen=True)
class StudyTeacher:
    """The run whose teacher all arms learn from."""

    recipe: str = knob("recipe that trains it: shipped, or a .yaml file relative to the study")
    seed: int = knob("its seed", least=0, most=2**32 - 1)


@dataclass(frozen=True)
class Study:
    """Everything a study is made of."""

    arms: dict[str, str] = knob("label of each arm and its recipe: shipped, or a .yaml file relative to the study")
    baseline: str = knob("label of the arm that differences are counted against")
    seeds: list[int] = knob("each arm runs once with each", least=0, most=2**32 - 1)
    description: str = knob("what it asks, on one line", "")
    control: str | None = knob(
        "label of an arm to compare the others with as well: all but their method; or null", None
    )
    teacher: StudyTeacher | None = knob(
        "trained first, its best.params being teacher.weights of all arms; or null", None
    )
    set: list[str] = knob("overrides KEY=VALUE of every run, before those of the command line", make=list)
