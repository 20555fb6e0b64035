"""What the RPN is trained to say: for every anchor whether it holds an object, and how to move it there."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gan_kd.detectors.faster_rcnn.settings import RATIOS, STRIDE

_TIE = np.spacing(np.float32(1.0))  # GluonCV's bound below which two overlaps count as equal
_POSITIVE, _NEGATIVE, _IGNORED = 1.0, 0.0, -1.0


class RPNTargets:
    """Labels a sample of an image's anchors and encodes the matches, with GluonCV's RPNTargetGenerator as the model.

    Positive is an anchor with an IoU of at least `positive_iou` with an object, and the anchor that overlaps an object
    most, unless this is less than `negative_iou`: below it an anchor is negative. Of the positives `positive_share` *
    `samples` at most stay, and negatives fill up to `samples`; all other anchors are ignored.

    border: px by which an anchor that takes part may leave the image, infinite for all. GluonCV takes none that leaves
    it, whatever its `allowed_border`; on a small image that leaves no large anchor.
    Source: Ren et al., Faster R-CNN (arXiv 1506.01497), section 3.1.2.
    """

    def __init__(
        self,
        scales: Sequence[float] = (2, 4, 8, 16, 32),
        ratios: Sequence[float] = RATIOS,
        border: float = 0,
        samples: int = 256,
        positive_iou: float = 0.7,
        negative_iou: float = 0.3,
        positive_share: float = 0.5,
    ) -> None:
        self.scales, self.ratios, self.border = tuple(scales), tuple(ratios), border
        self.samples, self.positives = samples, round(samples * positive_share)
        self.positive_iou, self.negative_iou = positive_iou, negative_iou

    @property
    def anchors_per_cell(self) -> int:
        return len(self.scales) * len(self.ratios)

    def anchors(self, cells: tuple[int, int]) -> np.ndarray:
        """(h, w, A, 4) corners in px, float32, of a map of h x w cells; the network's own."""
        return grid(self.scales, self.ratios, cells)

    def __call__(
        self, boxes: np.ndarray, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Targets of one image.

        boxes: (M, 4) corners in px, M may be 0; size: height and width of the image in px. Returns labels (h, w, A)
        float32, 1 object, 0 background, -1 ignored, and offsets (h, w, A, 4) float32, 0 where the label is not 1.
        """
        cells = cells_of(size)
        anchors = self.anchors(cells).reshape(-1, 4)
        labels = np.full(len(anchors), _IGNORED, np.float32)
        offsets = np.zeros_like(anchors)
        inside = np.flatnonzero(self._inside(anchors, size))
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        if not len(boxes):
            labels[inside] = _NEGATIVE
        elif len(inside):
            iou = overlaps(anchors[inside], boxes)
            labels[inside] = self._labels(iou)
        self._draw(labels, rng)
        positive = np.flatnonzero(labels == _POSITIVE)
        if len(positive):
            matched = overlaps(anchors[positive], boxes).argmax(axis=1)
            offsets[positive] = encode(boxes[matched], anchors[positive])
        shape = (*cells, self.anchors_per_cell)
        return labels.reshape(shape), offsets.reshape(*shape, 4)

    def _inside(self, anchors: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        height, width = size
        left, top, right, bottom = anchors.T
        low, high = -self.border, self.border
        return (left >= low) & (top >= low) & (right < width + high) & (bottom < height + high)

    def _labels(self, iou: np.ndarray) -> np.ndarray:
        best = iou.max(axis=1)
        favourite = (iou + _TIE > iou.max(axis=0)).any(axis=1)
        labels = np.where(favourite | (best >= self.positive_iou), _POSITIVE, _IGNORED)
        return np.where(best < self.negative_iou, _NEGATIVE, labels)

    def _draw(self, labels: np.ndarray, rng: np.random.Generator) -> None:
        """Ignore those beyond the sample."""
        for label, most in ((_POSITIVE, self.positives), (_NEGATIVE, None)):
            there = np.flatnonzero(labels == label)
            quota = self.samples - int((labels == _POSITIVE).sum()) if most is None else most
            if len(there) > quota:
                labels[rng.choice(there, len(there) - quota, replace=False)] = _IGNORED


class GridAnchors(NamedTuple):
    """Anchors of the map of an input of any size, as distillers take them; see `gan_kd.detectors.anchors.Anchors`."""

    scales: tuple[float, ...]

    def __call__(self, height: int, width: int) -> list[np.ndarray]:
        """One map."""
        return [grid(self.scales, RATIOS, cells_of((height, width)))]


def cells_of(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the map in cells, of an image of these px."""
    height, width = size
    return -(-height // STRIDE), -(-width // STRIDE)


@functools.lru_cache(maxsize=256)
def grid(scales: tuple[float, ...], ratios: tuple[float, ...], cells: tuple[int, int]) -> np.ndarray:
    """Anchors (h, w, A, 4), corners in px, float32; cells stand at multiples of 16 px. Read only."""
    shapes = []
    for ratio in ratios:  # a window of a cell's area, whole px wide and high
        width = np.rint(np.sqrt(STRIDE * STRIDE / ratio))
        shapes += [(width * scale, np.rint(width * ratio) * scale) for scale in scales]
    half = (np.array(shapes) - 1) / 2
    centre = (STRIDE - 1) / 2
    base = np.concatenate([centre - half, centre + half], axis=1)
    y, x = np.meshgrid(*[np.arange(count) * STRIDE for count in cells], indexing="ij")
    anchors = (base + np.stack([x, y, x, y], axis=-1)[:, :, None]).astype(np.float32)
    anchors.setflags(write=False)
    return anchors


def overlaps(anchors: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N, M) intersection over union; no pixel is added to a width, as in GluonCV."""
    low = np.maximum(anchors[:, None, :2], boxes[None, :, :2])
    shared = np.maximum(np.minimum(anchors[:, None, 2:], boxes[None, :, 2:]) - low, 0).prod(axis=2)
    union = _area(anchors)[:, None] + _area(boxes) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def encode(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(P, 4) offsets of boxes from anchors, both corners: of the centre in sides of the anchor, logarithm of sides."""
    side, other = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, :2] + other / 2 - (anchors[:, :2] + side / 2)) / side
    return np.concatenate([shift, np.log(other / side)], axis=1)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
