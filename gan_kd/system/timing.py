"""Things timed in turn: on a shared machine only the ratio of two of them in one run means something."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Result:
    """One figure of the benchmark: a ratio, its aim, and what it was calculated from."""

    key: str
    #: One line: which is divided by which, on what data.
    what: str
    #: Ratio of every round; its median is the figure. Empty: not run here, and `notes` say why.
    ratios: Sequence[float]
    aim: float
    #: Whether the aim is a lower bound (all but step_over_parts).
    at_least: bool = True
    #: What the ratio was calculated from, with the unit in the name: {"ours, images/s": 120.0}.
    details: Mapping[str, float] = field(default_factory=dict)
    #: Sentences for the page: threads, what bounds the figure, why it falls short.
    notes: Sequence[str] = ()

    @property
    def ratio(self) -> float:
        """Median over the rounds; NaN where nothing was run."""
        return float(np.median(self.ratios)) if self.ratios else float("nan")

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile over the rounds."""
        low, high = np.percentile(self.ratios, [25, 75]) if self.ratios else (float("nan"),) * 2
        return float(low), float(high)

    @property
    def bound(self) -> str:
        """The aim in words."""
        return f"at {'least' if self.at_least else 'most'} {self.aim:g}"

    @property
    def reached(self) -> bool:
        return self.ratio >= self.aim if self.at_least else self.ratio <= self.aim


def in_turn(things: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of every call of each thing, round by round, every other round in reverse order.

    A thing returns when its work is done: one that computes with MXNet waits for its arrays.
    """
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for number in range(-warm_up, rounds):
        for name in list(things)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            things[name]()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Round by round, so that what slows the machine for a while falls on both."""
    return [first / second for first, second in zip(numerator, denominator)]
