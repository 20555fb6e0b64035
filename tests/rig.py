"""What tests of training have in common: networks, distillers, a step and its batches."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx

from gan_kd.detectors.base import Level
from gan_kd.distill.base import Compared

CPU = mx.cpu(0)


def compared(
    channels: Sequence[int], sizes: Sequence[int], contexts: Sequence[mx.Context] = (CPU,), seed: int = 0
) -> Compared:
    """What a distiller is built with, for pairs of square maps of a detector with input 64 px."""
    levels = [Level("neck", count, 64 / side, side) for count, side in zip(channels, sizes)]
    return Compared(levels, tuple(contexts), student_channels=tuple(channels), seed=seed)
