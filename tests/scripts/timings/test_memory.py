"""Resident memory of a training: the fit, and that it does not grow, evaluations included."""

import sys

import numpy as np
import pytest

from scripts.timings import memory, page


def test_the_fit_finds_the_slope_after_the_start():
    steps = list(range(10, 310, 10))
    sizes = [10**9 if step <= 100 else 5 * 10**8 + 2048 * step for step in steps]
    found = memory.fit(steps, sizes, 100)
    assert found["bytes a step"] == pytest.approx(2048)
    assert found["growth"] == pytest.approx(2048 * 190)
    shown = "\n".join(
        block.markdown()
        for block in page.memory({"step": steps, "bytes": sizes, "settled": 100, "evaluated": 20, **found})
    )
    assert "+2.00 KiB a step" in shown and "| 10 | 953.7 |" in shown


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_training_keeps_its_size_with_evaluations_in_between():
    measured = memory.measure(steps=60, every=5, settled=20)
    assert measured["step"][-1] == 60 and np.min(measured["bytes"]) > 50e6
    assert measured["growth"] < 30e6
