"""The interval of a mean against a case worked by hand."""

import math

import pytest

from gan_kd.report.spread import interval95


def test_three_values():
    """Standard deviation 1, so the half width is t(0.975, 2) = 4.30265 over the root of 3."""
    found = interval95([1.0, 2.0, 3.0])
    assert found.mean == 2.0 and found.seeds == 3
    assert found.high - 2.0 == pytest.approx(4.302652730 / math.sqrt(3))
    assert 2.0 - found.low == pytest.approx(found.high - 2.0)


def test_one_value_has_no_bounds():
    found = interval95([1.5])
    assert found.mean == 1.5 and math.isnan(found.low) and math.isnan(found.high)
