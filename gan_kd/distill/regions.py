"""Regions of feature maps that a method imitates: NumPy alone, since the loader's workers compute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gan_kd.data.batch import Array
from gan_kd.detectors.anchors import Anchors


def overlaps(anchors: np.ndarray, boxes: np.ndarray, inclusive: bool = False) -> np.ndarray:
    """Intersection over union of every box with every anchor: (M, A) float32.

    anchors: (A, 4), boxes: (M, 4), corners in px. inclusive: a corner is a pixel that belongs to its box, so that
    widths and heights count one more (py-faster-rcnn). GluonCV's `bbox_iou` has this offset too, but takes boxes less
    than a pixel apart for separate then, and would load MXNet into every worker.
    """
    one = np.float32(inclusive)
    left, top, right, bottom = np.ascontiguousarray(np.asarray(anchors, np.float32).reshape(-1, 4).T)
    x0, y0, x1, y1 = np.asarray(boxes, np.float32).reshape(-1, 4).T[:, :, None]
    shared = np.maximum(np.minimum(x1, right) - np.maximum(x0, left) + one, 0)
    shared *= np.maximum(np.minimum(y1, bottom) - np.maximum(y0, top) + one, 0)
    union = (right - left + one) * (bottom - top + one) + (x1 - x0 + one) * (y1 - y0 + one) - shared
    shared /= union
    return shared


def fine_grained_counts(
    anchors: Sequence[np.ndarray],
    boxes: np.ndarray,
    threshold: float = 0.5,
    scope: str = "union",
    inclusive: bool = False,
) -> list[np.ndarray]:
    """Of each map and cell the number of (anchor, object) pairs that overlap enough: (h, w) int64 a map.

    Enough is more than `threshold` times the largest overlap that any anchor has with this object. scope: the largest
    over the anchors of all maps (union), so that an object counts on the maps that fit its size, or over each map's
    own (per_map), as the YOLO variant of xing-bing/yolov5-distilling has it. On a single map both are the paper's.

    anchors: of each map (h, w, a, 4), boxes: (M, 4), corners in px; M may be 0. inclusive: as in `overlaps`.
    Source: Wang et al. 2019 (arXiv 1906.03609), section 3.2.
    """
    ious = [overlaps(one, boxes, inclusive) for one in anchors]
    best = [iou.max(axis=1) for iou in ious]
    if scope == "union":
        best = [np.max(best, axis=0)] * len(ious)
    counts = []
    for one, iou, highest in zip(anchors, ious, best):
        enough = iou > (np.float32(threshold) * highest)[:, None]
        counts.append(np.count_nonzero(enough, axis=0).reshape(one.shape[:3]).sum(axis=2))
    return counts


def fine_grained_masks(
    anchors: Sequence[np.ndarray],
    boxes: np.ndarray,
    threshold: float = 0.5,
    scope: str = "union",
    inclusive: bool = False,
) -> list[np.ndarray]:
    """The cells near objects, (h, w) bool a map: those where `fine_grained_counts` counts anything."""
    return [counts > 0 for counts in fine_grained_counts(anchors, boxes, threshold, scope, inclusive)]


class FineGrainedRegions(NamedTuple):
    """`fine_grained_masks` of every image of a batch, for the loader: (h, w) float32 a map, 1 where it imitates."""

    anchors: Anchors
    threshold: float
    scope: str
    inclusive: bool

    def arrays(self, height: int, width: int) -> list[Array]:
        """A mask a map."""
        return [(one.shape[:2], np.float32) for one in self.anchors(height, width)]

    def write(self, objects: np.ndarray, height: int, width: int, arrays: Sequence[np.ndarray]) -> None:
        """The masks of a sample with these objects, (m, 5)."""
        anchors = self.anchors(height, width)
        masks = fine_grained_masks(anchors, objects[:, :4], self.threshold, self.scope, self.inclusive)
        for array, mask in zip(arrays, masks):
            array[:] = mask
