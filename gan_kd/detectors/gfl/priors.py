"""GFL's priors: a square on every cell of every level, of 8 strides a side. NumPy alone, as the loader's workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: px of the input that a cell of each level P3..P7 stands for.
STRIDES = (8, 16, 32, 64, 128)
#: Side of a prior in strides (ATSS, arXiv 1912.02424, section 3.1).
SIDE = 8


class Priors(NamedTuple):
    """Priors of an input, A of them, level after level from P3, row after row."""

    #: (A,2) float64, x and y in px. The centre of row i, column j is (j, i) strides, without half a cell.
    centres: np.ndarray
    #: (A,) float64, px.
    strides: np.ndarray
    #: Priors of each level.
    counts: tuple[int, ...]

    @property
    def boxes(self) -> np.ndarray:
        """(A,4) float64, corners in px; those at the border reach beyond the image."""
        half = self.strides[:, None] * SIDE / 2
        return np.concatenate([self.centres - half, self.centres + half], axis=1)

    def inside(self, width: float, height: float) -> np.ndarray:
        """(A,) bool: the cells that a part of this size in px has, at the top left of the input."""
        return (self.centres < (width, height)).all(axis=1)


def shapes(width: int, height: int) -> list[tuple[int, int]]:
    """Rows and columns of each level for an input in px: the network's convolutions round up."""
    return [(-(-height // stride), -(-width // stride)) for stride in STRIDES]


def make(levels: Sequence[tuple[int, int]]) -> Priors:
    """The priors of levels of these rows and columns, from P3 on."""
    centres, strides = [], []
    for (rows, columns), stride in zip(levels, STRIDES):
        y, x = np.divmod(np.arange(rows * columns), columns)
        centres.append(np.stack([x, y], axis=1) * float(stride))
        strides.append(np.full(rows * columns, float(stride)))
    return Priors(np.concatenate(centres), np.concatenate(strides), tuple(map(len, strides)))
