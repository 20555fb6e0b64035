"""Pooled differences against a case worked by hand, least squares, and cases of the literature's formulas."""

import math

import numpy as np
import pytest

from gan_kd.study.report.contrasts import holm, lay_out

# Arms' means 2, 4, 6, seeds' means 3 and 5, grand mean 4: residuals 0 0, 1 -1, -1 1.
MAPS = {"a": {1: 1.0, 2: 3.0}, "b": {1: 4.0, 2: 4.0}, "c": {1: 4.0, 2: 8.0}}


def test_a_case_worked_by_hand():
    """Residual squares sum to 4 over (3 - 1)(2 - 1) = 2: mean square 2. t(0.975, 2) = 4.30265."""
    found = lay_out(MAPS)
    assert found.means == {"a": 2.0, "b": 4.0, "c": 6.0} and found.seeds == (1, 2) and found.df == 2
    assert found.sd == pytest.approx(math.sqrt(2)) and found.error == pytest.approx(math.sqrt(2))
    interval = found.interval("c", "a")
    assert interval.mean == 4.0 and interval.seeds == 2
    assert interval.high - 4.0 == pytest.approx(4.302652730 * math.sqrt(2))
    assert 4.0 - interval.low == pytest.approx(interval.high - 4.0)


def test_two_contrasts_at_once_are_wider():
    """t(1 - 0.05 / 4, 2) = 6.205347."""
    interval = lay_out(MAPS).interval("c", "a", contrasts=2)
    assert interval.high - 4.0 == pytest.approx(6.205346817 * math.sqrt(2))


def test_the_p_value_of_two_degrees_of_freedom():
    """With df 2, P(|T| > t) = 1 - t / sqrt(2 + t^2); here t = 4 / sqrt 2."""
    t = 4 / math.sqrt(2)
    assert lay_out(MAPS).p_value("c", "a") == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert lay_out(MAPS).p_value("a", "c") == lay_out(MAPS).p_value("c", "a")


def test_least_squares_on_dummy_variables_says_the_same():
    draws = np.random.default_rng(5).normal(size=(5, 4))
    found = lay_out({f"arm {i}": {seed: draws[i, seed] for seed in range(4)} for i in range(5)})
    rows = [(i, seed) for i in range(5) for seed in range(4)]
    design = np.array([[i == k for k in range(5)] + [seed == k for k in range(1, 4)] for i, seed in rows], float)
    y = np.array([draws[row] for row in rows])
    solution, squares, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    df = len(rows) - rank
    assert found.df == df == 12
    assert found.sd == pytest.approx(math.sqrt(squares[0] / df))
    contrast = np.array([-1, 1] + [0] * 6, float)
    error = math.sqrt(squares[0] / df * contrast @ np.linalg.inv(design.T @ design) @ contrast)
    assert found.interval("arm 1", "arm 0").mean == pytest.approx(contrast @ solution)
    assert found.error == pytest.approx(error)


def test_two_arms_are_the_paired_t_interval():
    from gan_kd.report.spread import interval95

    one, other = {1: 50.0, 2: 52.0, 3: 54.0}, {1: 53.0, 2: 54.0, 3: 57.0}
    pooled = lay_out({"one": one, "other": other}).interval("other", "one")
    assert tuple(pooled) == pytest.approx(tuple(interval95([other[s] - one[s] for s in one])))


def test_the_seeds_are_those_that_all_arms_have():
    late = {**MAPS, "a": {**MAPS["a"], 3: 9.0}, "late": {1: 7.0}}
    assert lay_out(late) == lay_out(MAPS)


@pytest.mark.parametrize("maps", [{}, {"a": {1: 1.0, 2: 2.0}}, {"a": {1: 1.0}, "b": {1: 2.0}},
                                  {"a": {1: 1.0, 2: 2.0}, "b": {2: 1.0, 3: 2.0}}])  # fmt: skip
def test_too_little_to_compare(maps):
    assert lay_out(maps) is None


def test_no_spread_at_all():
    found = lay_out({"a": {1: 1.0, 2: 2.0}, "b": {1: 2.0, 2: 3.0}})
    assert (found.sd, found.p_value("a", "b"), found.p_value("a", "a"), found.detectable()) == (0, 0, 1, 0)


TWO_ARMS = {"a": {1: 1.0, 2: 3.0, 3: 2.0, 4: 2.5}, "b": {1: 2.0, 2: 3.0, 3: 1.0, 4: 4.0}}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("maps", [MAPS, TWO_ARMS], ids=["2 degrees of freedom", "3 degrees of freedom"])
def test_the_detectable_difference_is_found_in_four_of_five_draws(maps):
    """Against simulation: normal errors of the layout's sd, its own test at 5%."""
    from scipy.stats import t

    found, generator, draws = lay_out(maps), np.random.default_rng(3), 40_000
    differences = found.detectable() + found.error * generator.normal(size=draws)
    errors = found.error * np.sqrt(generator.chisquare(found.df, draws) / found.df)
    assert np.mean(np.abs(differences) / errors > t.ppf(0.975, found.df)) == pytest.approx(0.8, abs=0.01)


def test_holm_by_hand():
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 are 0.02, 0.03, 0.06, 0.04; the last rises to 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0] and holm([]) == [] and holm([0.03]) == [0.03]
