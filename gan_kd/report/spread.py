"""Mean, spread and confidence of a few seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean and the bounds within which it lies with 95% confidence; NaN bounds for a single value."""

    mean: float
    low: float
    high: float
    seeds: int


def interval95(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of independent values, at least one: differences seed by seed, for example."""
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Interval(mean, float("nan"), float("nan"), count)
    from scipy.stats import t  # 0.3 s to import, and no command but the report needs it

    half = float(t.ppf(0.975, count - 1)) * statistics.stdev(values) / count**0.5
    return Interval(mean, mean - half, mean + half, count)
