"""What SSD's loss is computed against: for every anchor the class and the box that it should predict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_NO_OVERLAP = np.float32(1e-12)  # GluonCV's bound below which two boxes count as apart


class SSDTargets:
    """Matches anchors to objects and encodes the matches, with GluonCV's `SSDTargetGenerator` as the model.

    Every object first takes the anchor that overlaps it most, the best pairs before the others and no anchor
    twice; an anchor left over belongs to the object it overlaps most if no other anchor overlaps that object
    more, or if their IoU is at least `iou_thresh`. All others are background: negatives are mined in the
    loss, not here.

    anchors: (A, 4) centre x, centre y, width, height in input pixels, as `SSDHead.anchors` gives them.
    stds: divisors of the four encoded offsets, the same as in the decoder.
    Source: Liu et al., SSD (arXiv 1512.02325), section 2.2.
    """

    def __init__(
        self, anchors: np.ndarray, iou_thresh: float = 0.5, stds: Sequence[float] = (0.1, 0.1, 0.2, 0.2)
    ) -> None:
        centre, half = np.split(np.asarray(anchors, np.float32).reshape(-1, 4), 2, axis=1)
        half = half / 2
        corners = np.concatenate([centre - half, centre + half], axis=1)
        self._corners = np.ascontiguousarray(corners.T)  # (4, A): one contiguous row per edge
        self._size = corners[:, 2:] - corners[:, :2]
        self._centre = corners[:, :2] + self._size / 2
        self._area = self._size[:, 0] * self._size[:, 1]
        self._iou_thresh = np.float32(iou_thresh)
        self._stds = np.asarray(stds, np.float32)

    def __len__(self) -> int:
        return len(self._area)

    def __call__(self, boxes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Targets of one image.

        boxes: (M, 4) corners in input pixels, M may be 0; labels: (M,) class numbers from 0. Returns class
        targets (A,) float32, 0 for background and class + 1 else, and box targets (A, 4) float32, the encoded
        offsets of the matched object, 0 for background.
        """
        classes, offsets = np.empty(len(self), np.float32), np.empty((len(self), 4), np.float32)
        self.write(boxes, labels, classes, offsets)
        return classes, offsets

    def write(self, boxes: np.ndarray, labels: np.ndarray, classes: np.ndarray, offsets: np.ndarray) -> None:
        """The same, written into the arrays for class and box targets."""
        classes[:] = 0
        offsets[:] = 0
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        if len(boxes):
            positive, matched = self._match(self._iou(boxes))
            classes[positive] = np.asarray(labels)[matched] + 1
            offsets[positive] = self._encode(boxes[matched], positive)

    def _iou(self, boxes: np.ndarray) -> np.ndarray:
        """(M, A) intersection over union; no pixel is added to a width, as in GluonCV."""
        left, top, right, bottom = self._corners
        x0, y0, x1, y1 = boxes.T[:, :, None]
        overlap = _shared(x0, x1, left, right)
        overlap *= _shared(y0, y1, top, bottom)
        union = self._area + (x1 - x0) * (y1 - y0)
        union -= overlap
        overlap /= union
        return overlap

    def _match(self, iou: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The anchors that have an object and that object, (P,) and (P,) int64, from the (M, A) overlaps."""
        best = iou.argmax(axis=1)
        highest = iou[np.arange(len(iou)), best]
        # Few anchors can have one at all: the costly favourite among the objects is found for them alone.
        least = min(self._iou_thresh, max(highest.min(), _NO_OVERLAP))
        overlap = iou.max(axis=0)
        able = np.flatnonzero(overlap >= least)
        favourite, overlap = iou[:, able].argmax(axis=0), overlap[able]
        shared = (overlap >= highest[favourite]) & (overlap > _NO_OVERLAP)
        chosen = shared | (overlap >= self._iou_thresh)
        objects = dict(zip(able[chosen].tolist(), favourite[chosen].tolist()))
        objects.update(_pair_off(iou, best, highest))
        positive = sorted(objects)
        return np.array(positive, np.int64), np.array([objects[anchor] for anchor in positive], np.int64)

    def _encode(self, boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
        """(P, 4) offsets of P boxes from P anchors, given by number."""
        size = boxes[:, 2:] - boxes[:, :2]
        centre = boxes[:, :2] + size / 2
        shift = (centre - self._centre[anchors]) / self._size[anchors]
        return np.concatenate([shift, np.log(size / self._size[anchors])], axis=1) / self._stds


def _shared(start: np.ndarray, end: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """(M, A) the length that start..end (M, 1) and first..last (A,) have in common."""
    length = np.minimum(end, last)
    length -= np.maximum(start, first)
    return np.maximum(length, 0, out=length)


def _pair_off(iou: np.ndarray, best: np.ndarray, highest: np.ndarray) -> dict[int, int]:
    """Objects by anchor, the pairs of highest overlap first, every object and every anchor at most once.

    best, highest: (M,) the anchor that overlaps an object most, and how much. Ties go to the lower anchor, then to
    the lower object, the order of MXNet's stable sort.
    """
    if len(set(best.tolist())) == len(best):  # no two objects want the same anchor
        return {anchor: box for box, anchor in enumerate(best.tolist()) if highest[box] > _NO_OVERLAP}
    iou, best = iou.copy(), best.copy()
    objects = np.arange(len(iou))
    pairs = {}
    for _ in objects:
        value = iou[objects, best]
        tied = np.flatnonzero(value == value.max())
        box = tied[best[tied].argmin()]
        if value[box] <= _NO_OVERLAP:
            break
        anchor = best[box]
        pairs[int(anchor)] = int(box)
        iou[box] = -1
        iou[:, anchor] = -1
        stale = np.flatnonzero(best == anchor)
        best[stale] = iou[stale].argmax(axis=1)
    return pairs
