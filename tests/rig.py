"""What tests of several rooms build: a detector, and what distillers are built with."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx

from gan_kd.detectors import saved
from gan_kd.detectors.base import Detector, Level
from gan_kd.distill.base import Compared
from gan_kd.recipe import Eval

CPU = mx.cpu(0)


def compared(
    channels: Sequence[int], sizes: Sequence[int], contexts: Sequence[mx.Context] = (CPU,), seed: int = 0
) -> Compared:
    """What a distiller is built with, for pairs of square maps of a detector with input 64 px."""
    levels = [Level("neck", count, 64 / side, side) for count, side in zip(channels, sizes)]
    return Compared(levels, tuple(contexts), student_channels=tuple(channels), seed=seed)


def build_detector(
    backbone: str,
    size: int,
    classes: Sequence[str],
    head_backbone: str | None = None,
    measured: Eval | None = None,
    adapter: str = "linear",
) -> Detector:
    """An SSD with random weights; head_backbone: of the teacher whose head it has."""
    about = {
        "backbone": backbone, "size": size, "classes": list(classes), "head": "teacher" if head_backbone else "own",
        "head_backbone": head_backbone or backbone, "adapter": adapter,
    }  # fmt: skip
    return saved.restore(about, measured or Eval())
