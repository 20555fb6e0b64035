"""PASCAL VOC average precision: the 11-point rule of VOC2007 and the area rule of VOC2010 and later.

Counted as the VOC devkit's VOCevaldet counts: detections of a class go through in order of falling score;
each takes the object of its image and class that it overlaps most; from the IoU threshold on, it is a hit if
the object was free, a false alarm if the object was taken, and neither if the object is marked difficult.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gan_kd.metrics import Result, checked_detections, mean_of_known

# 0.1 is no binary fraction, so three of ten objects found do not reach the fourth point, 0.30000000000000004:
# here as in GluonCV, by which the published figures were counted.
RECALL_POINTS = np.arange(0.0, 1.1, 0.1)

_HIT, _FALSE_ALARM, _NEITHER = 1, 0, -1


class VOCMetric:
    """VOC AP of a data set, image by image: `update` for each, then `result`.

    classes: their names; a label is an index into them. iou: the least overlap of a hit.
    points11: the mean of 11 points of the precision-recall curve (VOC2007), else the area under it (VOC2010).
    """

    def __init__(self, classes: Sequence[str], iou: float = 0.5, points11: bool = True) -> None:
        self.classes = tuple(classes)
        self.iou = iou
        self._average = average_precision_11 if points11 else average_precision_area
        self._objects = np.zeros(len(self.classes), dtype=np.int64)
        self._seen: list[np.ndarray] = []  # an image's (K, 3): class, score, match
        self._images = 0

    def update(
        self,
        detections: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray,
        difficult: np.ndarray,
        image: str = "",
    ) -> None:
        """Count one image.

        detections: (K, 6) x0, y0, x1, y1, class, score; rows of class < 0 are padding. boxes: (M, 4).
        All boxes in pixels of one scale, the last pixel included. labels: (M,) int. difficult: (M,) bool.
        image: its name, for messages. RunError where a detection is not finite.
        """
        self._images += 1
        found = checked_detections(detections, len(self.classes), image or f"image number {self._images}")
        labels = np.asarray(labels, dtype=np.int64).reshape(-1)
        difficult = np.asarray(difficult, dtype=bool).reshape(-1)
        self._objects += np.bincount(labels[~difficult], minlength=len(self.classes))

        found = found[np.argsort(-found[:, 5], kind="stable")]
        match = np.full(len(found), _FALSE_ALARM)
        if len(found) and len(labels):
            overlap = box_iou(found[:, :4], np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
            overlap[found[:, 4, None] != labels] = -1.0
            nearest = overlap.argmax(axis=1)
            reached = overlap.max(axis=1) >= self.iou
            match[reached & difficult[nearest]] = _NEITHER
            candidates = np.flatnonzero(reached & ~difficult[nearest])
            # Rows are in order of score and return_index is the first row of each object, which takes it.
            match[candidates[np.unique(nearest[candidates], return_index=True)[1]]] = _HIT
        self._seen.append(np.column_stack((found[:, 4:6], match)))

    def result(self) -> Result:
        """AP of each class and their mean, in percent. Equal scores count in the order in which they came."""
        seen = np.concatenate(self._seen) if self._seen else np.zeros((0, 3))
        ap = {}
        for index, name in enumerate(self.classes):
            rows = seen[seen[:, 0] == index]
            match = rows[np.argsort(-rows[:, 1], kind="stable"), 2]
            if not self._objects[index]:
                ap[name] = float("nan")
                continue
            hits = np.cumsum(match == _HIT)
            counted = hits + np.cumsum(match == _FALSE_ALARM)
            ap[name] = 100.0 * self._average(hits / self._objects[index], hits / np.maximum(counted, 1))
        return Result(ap, mean_of_known(list(ap.values())))


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU (K, M) of boxes (K, 4) and (M, 4), x0, y0, x1, y1 in pixels, the last pixel included (so + 1)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:]) + 1.0
    common = np.prod(np.maximum(high - low, 0.0), axis=2)
    area_first = np.prod(first[:, 2:] - first[:, :2] + 1.0, axis=1)
    area_second = np.prod(second[:, 2:] - second[:, :2] + 1.0, axis=1)
    union = area_first[:, None] + area_second - common
    # An inverted detection can make the sum zero or negative; it has nothing in common with any object.
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def average_precision_11(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC2007: mean over the recalls 0, 0.1 .. 1 of the best precision at that recall or more (none: 0).

    recall, precision: (K,) after each detection, in order of falling score.
    """
    best = np.append(_best_from_here(precision), 0.0)
    return float(best[np.searchsorted(recall, RECALL_POINTS)].mean())


def average_precision_area(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC2010 and later: area under the curve of the best precision at each recall or more."""
    return float(np.sum(np.diff(recall, prepend=0.0) * _best_from_here(precision)))


def _best_from_here(precision: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(precision[::-1])[::-1]
