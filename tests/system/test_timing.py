"""Results and the order in which things are timed."""

import math

import pytest

from gan_kd.system.timing import Result, in_turn, ratios


def test_a_result_is_the_median_with_its_quartiles():
    result = Result("x", "", [4.0, 1.0, 2.0, 3.0, 100.0], aim=3)
    assert (result.ratio, result.spread, result.reached) == (3.0, (2.0, 4.0), True)
    assert not Result("x", "", [2.9], aim=3).reached


def test_an_upper_bound_is_reached_from_below():
    assert Result("x", "", [1.05], aim=1.05, at_least=False).reached
    assert not Result("x", "", [1.06], aim=1.05, at_least=False).reached
    assert Result("x", "", [], aim=1.05, at_least=False).bound == "at most 1.05"


def test_what_was_not_run_has_no_ratio_and_reaches_nothing():
    result = Result("x", "", [], aim=1)
    assert math.isnan(result.ratio) and not result.reached


def test_things_take_turns_in_changing_order():
    calls = []
    seconds = in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2, warm_up=1)
    assert "".join(calls) == "ba" + "ab" + "ba"
    assert [len(seconds[name]) for name in "ab"] == [2, 2]


def test_ratios_are_of_the_same_round():
    assert ratios([2.0, 9.0], [1.0, 3.0]) == pytest.approx([2.0, 3.0])
