"""YOLOv3's anchors: three shapes in every cell of three maps (arXiv 1804.02767, section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STRIDES = (8, 16, 32)
#: Width and height in px of the three anchors of every cell, by stride; the same at any input size.
ANCHORS = np.array(
    [[(10, 13), (16, 30), (33, 23)], [(30, 61), (62, 45), (59, 119)], [(116, 90), (156, 198), (373, 326)]], np.float32
)


def anchor_boxes(stride: int, height: int, width: int) -> np.ndarray:
    """Anchors of a map, float32 (height, width, 3, 4) corners in input px, each on the centre of its cell."""
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    centre = (np.stack([x, y], axis=2)[:, :, None] + 0.5) * stride
    half = ANCHORS[STRIDES.index(stride)] / 2
    return np.concatenate([centre - half, centre + half], axis=3).astype(np.float32)


class YOLO3Anchors:
    """Anchors of the maps of these strides for any input, as `gan_kd.detectors.anchors.Anchors`."""

    def __init__(self, strides: Sequence[int]) -> None:
        self.strides = list(strides)

    def __call__(self, height: int, width: int) -> list[np.ndarray]:
        return [anchor_boxes(stride, height // stride, width // stride) for stride in self.strides]


def anchor_count(size: int) -> int:
    """Anchors of a square input of `size` px, a multiple of 32."""
    return ANCHORS.shape[1] * sum((size // stride) ** 2 for stride in STRIDES)
