"""PASCAL VOC average precision: the 11-point rule of VOC2007 and the area rule of VOC2010 and later.

Counted as the VOC devkit's VOCevaldet counts: detections of a class go through in order of falling score;
each takes the object of its image and class that it overlaps most; from the IoU threshold on, it is a hit if
the object was free, a false alarm if the object was taken, and neither if the object is marked difficult.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gan_kd.evaluation.metrics import Result, checked_detections, mean_of_known

# 0.1 is no binary fraction, so three of ten objects found do not reach the fourth point, 0.30000000000000004:
# here as in GluonCV, by which the published figures were counted.
RECALL_POINTS = np.arange(0.0, 1.1, 0.1)

_HIT, _FALSE_ALARM, _NEITHER = 1, 0, -1
# Images matched at once: enough that NumPy's cost of a call does not count, few enough for the processor's caches.
_CHUNK = 256


class VOCMetric:
    """VOC AP of a data set, image by image: `update` for each, then `result`.

    classes: their names; a label is an index into them. iou: the least overlap of a hit, above 0.
    points11: the mean of 11 points of the precision-recall curve (VOC2007), else the area under it (VOC2010).
    """

    def __init__(self, classes: Sequence[str], iou: float = 0.5, points11: bool = True) -> None:
        self.classes = tuple(classes)
        self.iou = iou
        self._average = average_precision_11 if points11 else average_precision_area
        self._objects = np.zeros(len(self.classes), dtype=np.int64)
        self._waiting: list[tuple[np.ndarray, ...]] = []  # images that are not matched yet
        self._seen: list[np.ndarray] = []  # a chunk's (K, 3): class, score, match
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
        image: its name, for messages. Diverged where a detection is not finite.
        """
        self._images += 1
        found = checked_detections(detections, len(self.classes), image or f"image number {self._images}")
        self._waiting.append(
            (
                found,
                np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
                np.asarray(labels, dtype=np.int64).reshape(-1),
                np.asarray(difficult, dtype=bool).reshape(-1),
            )
        )
        if len(self._waiting) == _CHUNK:
            self._match()

    def _match(self) -> None:
        """Match the waiting images in one go: every detection with the objects of its image and class alone."""
        if not self._waiting:
            return
        detections, boxes, labels, difficult = (np.concatenate(parts) for parts in zip(*self._waiting))
        image, owner = (
            np.repeat(np.arange(len(self._waiting)), [len(one[part]) for one in self._waiting]) for part in (0, 2)
        )
        self._objects += np.bincount(labels[~difficult], minlength=len(self.classes))
        by_score = np.argsort(-detections[:, 5], kind="stable")
        detections, image = detections[by_score], image[by_score]
        # One number for image and class; objects of equal number stay in their order, in which they win ties.
        key = owner * len(self.classes) + labels
        by_key = np.argsort(key, kind="stable")
        boxes, difficult = boxes[by_key], difficult[by_key]
        wanted = image * len(self.classes) + detections[:, 4].astype(np.int64)
        counts = np.bincount(key, minlength=len(self._waiting) * len(self.classes))
        first = (np.cumsum(counts) - counts)[wanted]

        match = np.full(len(detections), _FALSE_ALARM)
        row, nearest = _nearest(detections[:, :4], boxes, first, counts[wanted], self.iou)
        match[row[difficult[nearest]]] = _NEITHER
        row, nearest = row[~difficult[nearest]], nearest[~difficult[nearest]]
        # Rows are in order of score and return_index is the first row of each object, which takes it.
        match[row[np.unique(nearest, return_index=True)[1]]] = _HIT
        self._seen.append(np.column_stack((detections[:, 4:6], match)))
        self._waiting = []

    def result(self) -> Result:
        """AP of each class and their mean, in percent. Equal scores count in the order in which they came."""
        self._match()
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


def _nearest(
    detections: np.ndarray, boxes: np.ndarray, first: np.ndarray, count: np.ndarray, iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """The object that each detection overlaps most, of `count` ones from `first` on, if its IoU reaches `iou`.

    detections: (K, 4), boxes: (M, 4), first, count: (K,) int. Returns the rows of such detections, rising, and
    the index of the object of each; of equally near ones the first.
    """
    row = np.repeat(np.arange(len(detections)), count)
    start = np.cumsum(count) - count  # of a row's pairs with objects
    index = np.arange(len(row)) - np.repeat(start - first, count)
    overlap = box_iou(detections[row], boxes[index])
    paired = count > 0
    most = np.repeat(np.maximum.reduceat(overlap, start[paired]), count[paired]) if len(row) else overlap
    reached = np.flatnonzero((overlap == most) & (overlap >= iou))
    rows, at = np.unique(row[reached], return_index=True)
    return rows, index[reached[at]]


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU (..., K) of boxes (..., 4) pair by pair, x0, y0, x1, y1 in pixels, the last pixel included (so + 1)."""
    width, height = (
        np.maximum(np.minimum(first[..., k + 2], second[..., k + 2]) + 1 - np.maximum(first[..., k], second[..., k]), 0)
        for k in (0, 1)
    )
    common = width * height
    union = _area(first) + _area(second) - common
    # An inverted detection can make the sum zero or negative; it has nothing in common with any object.
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0] + 1) * (boxes[..., 3] - boxes[..., 1] + 1)


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
