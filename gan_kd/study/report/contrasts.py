"""Differences between arms with the error pooled over all of them, and what several comparisons do to them.

The design is a two-way layout without replication: arms as treatments, seeds as complete blocks (Montgomery, Design and
Analysis of Experiments, chapter 4). It takes the spread to be the same in every arm; in return three seeds of six arms
give 10 degrees of freedom, where a paired difference has 2.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gan_kd.report.spread import Interval

CONFIDENCE, POWER = 0.95, 0.8


@dataclass(frozen=True)
class Layout:
    """Arms x seeds, every cell measured. `means`: of each arm, points; `sd`: residual standard deviation of one run."""

    means: Mapping[str, float]
    seeds: tuple[int, ...]
    sd: float

    @property
    def df(self) -> int:
        """Degrees of freedom of the residual: (a - 1)(n - 1) for a arms and n seeds."""
        return (len(self.means) - 1) * (len(self.seeds) - 1)

    @property
    def error(self) -> float:
        """Standard error of a difference of two arms' means: sd sqrt(2 / n)."""
        return self.sd * math.sqrt(2 / len(self.seeds))

    def interval(self, one: str, other: str, contrasts: int = 1) -> Interval:
        """Mean of `one` - mean of `other`, d +- t(1 - 0.05 / 2m, df) sd sqrt(2 / n).

        contrasts: m, over which the 95% hold at once (Bonferroni); 1 for an interval by itself.
        """
        from scipy.stats import t  # as in spread.py

        mean = self.means[one] - self.means[other]
        half = float(t.ppf(1 - (1 - CONFIDENCE) / (2 * contrasts), self.df)) * self.error
        return Interval(mean, mean - half, mean + half, len(self.seeds))

    def p_value(self, one: str, other: str) -> float:
        """Two-sided p-value of no difference, Student's t with `df` degrees of freedom."""
        from scipy.stats import t

        mean = self.means[one] - self.means[other]
        if self.error == 0:
            return float(mean == 0)
        return float(2 * t.sf(abs(mean) / self.error, self.df))

    def detectable(self) -> float:
        """Smallest true difference that a two-sided test at 5% finds with 80% power in so many seeds, points.

        It solves P(|T| > t(0.975, df)) = 0.8 for T of the noncentral t distribution whose noncentrality is the
        difference by its standard error (Montgomery, section 2.4).
        """
        from scipy.optimize import brentq
        from scipy.stats import nct, t

        bound = float(t.ppf(1 - (1 - CONFIDENCE) / 2, self.df))

        def lacking(shift: float) -> float:
            return float(nct.sf(bound, self.df, shift) + nct.cdf(-bound, self.df, shift)) - POWER

        with np.errstate(divide="ignore"):  # SciPy divides by zero on its way to the right value, at df 3 for one
            return float(brentq(lacking, 0.0, 4 * bound)) * self.error


def lay_out(maps: Mapping[str, Mapping[int, float]]) -> Layout | None:
    """The layout of mAP by arm and seed, over the seeds that every arm with two of them has.

    The residual of a cell is y - arm's mean - seed's mean + grand mean; their squares over (a - 1)(n - 1) are the
    residual mean square. None with fewer than two such arms or seeds.
    """
    arms = {arm: by_seed for arm, by_seed in maps.items() if len(by_seed) > 1}
    if len(arms) < 2:
        return None
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in arms.values())))
    if len(seeds) < 2:
        return None
    means = {arm: statistics.fmean(by_seed[seed] for seed in seeds) for arm, by_seed in arms.items()}
    blocks = {seed: statistics.fmean(by_seed[seed] for by_seed in arms.values()) for seed in seeds}
    grand = statistics.fmean(means.values())
    residuals = (arms[arm][seed] - means[arm] - blocks[seed] + grand for arm in arms for seed in seeds)
    square = sum(value**2 for value in residuals) / ((len(arms) - 1) * (len(seeds) - 1))
    return Layout(means, tuple(seeds), math.sqrt(square))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in the order given (Holm 1979, step down).

    The k-th smallest of m, counted from 0, becomes the largest (m - j) p_(j) of j = 0 ... k, 1 at most.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for k, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - k) * p_values[index]))
        adjusted[index] = largest
    return adjusted
