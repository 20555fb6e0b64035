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
class Search:
    """Settings of every arm, tried before the study on a part of the training images that no run of it trains on."""

    holdout: int = knob(
        "data.holdout of its runs; a search without a holdout would choose settings by the test images", least=2
    )
    seeds: list[int] = knob("each trial runs once with each; none is a seed of the study", least=0, most=2**32 - 1)
    trials: dict[str, list[str]] = knob("of each arm, as many for all: texts of overrides KEY=VALUE, apart by blanks")
    set: list[str] = knob("overrides KEY=VALUE of the trials alone, before their own: a shorter schedule", make=list)


@dataclass(frozen=True)
class Study:
    """Everything a study is made of."""

    arms: dict[str, str] = knob("label of each arm and its recipe: shipped, or a .yaml file relative to the study")
    baseline: str = knob("label of the arm that differences are counted against")
    seeds: list[int] = knob("each arm runs once with each", least=0, most=2**32 - 1)
    description: str = knob("what it asks, on one line", "")
    fewer_seeds: dict[str, list[int]] = knob(
        "seeds of an arm that does not run with all; of a single one no interval is made", make=dict
    )
    control: str | None = knob(
        "label of an arm to compare the others with as well: all but their method; or null", None
    )
    teacher: StudyTeacher | None = knob(
        "trained first, its best.params being teacher.weights of all arms; or null", None
    )
    set: list[str] = knob("overrides KEY=VALUE of every run, before those of the command line", make=list)
    search: Search | None = knob("how each arm's settings are chosen before its runs; null: as the recipes say", None)
    chosen_by: str | None = knob(
        "study whose search chose the settings of the arms with the same labels: shipped, or a .yaml file; or null",
        None,
    )
    decisive: list[str] = knob(
        "comparisons that the study is made for, corrected for their number: ARM - ARM", make=list
    )
    measure: str = knob(
        "what comparisons are made of, after the last epoch: map (the recipes' own metric), voc07, voc10, ap or ap75",
        "map",
        choices=("map", "voc07", "voc10", "ap", "ap75"),
    )

    def seeds_of(self, arm: str) -> list[int]:
        """The seeds that an arm runs with."""
        return self.fewer_seeds.get(arm, self.seeds)

    @property
    def contrasts(self) -> list[tuple[str, str]]:
        """The two arms of each decisive comparison."""
        return [(one, other) for one, _, other in (text.partition(" - ") for text in self.decisive)]
