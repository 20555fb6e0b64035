"""Random squares: one for ten batches, drawn from a batch's place alone."""

from __future__ import annotations

import numpy as np

from gan_kd.data.sizes import Random

SIDES = tuple(range(320, 609, 32))
SHAPES = np.array([[375, 500]])


def drawn(seed: int, epoch: int, batches: int) -> list[tuple[int, int]]:
    return [Random(SIDES).of_batch(SHAPES, (seed, epoch, batch)) for batch in range(batches)]


def test_sides_change_every_ten_batches_and_are_all_drawn() -> None:
    blocks = np.array(drawn(7, 0, 3000)).reshape(-1, 10, 2)
    assert (blocks == blocks[:, :1, :1]).all()
    counts = [np.count_nonzero(blocks[:, 0, 0] == side) for side in SIDES]
    assert sum(counts) == 300 and min(counts) >= 15
    assert drawn(7, 1, 100) != drawn(7, 0, 100) != drawn(8, 0, 100)


def test_no_batch_is_larger_than_the_largest() -> None:
    assert Random(SIDES).largest(SHAPES) == (608, 608)
    np.testing.assert_array_equal(Random(SIDES).extents(SHAPES), [[608, 608]])
    assert not Random(SIDES).padded
