"""Which priors stand for which object: ATSS in NumPy (Zhang et al., arXiv 1912.02424, algorithm 1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gan_kd.detectors.gfl.priors import Priors
from gan_kd.errors import UsageError

#: Candidates of an object on each level.
_CANDIDATES = 9
#: px that a positive prior's centre is inside of its object, on every side.
_MARGIN = 0.01


class Assigned(NamedTuple):
    """What priors stand for in an image with G objects."""

    #: (A,) int64: the object of each prior, or -1.
    objects: np.ndarray
    #: (G,) float64: IoU from which a candidate is positive.
    thresholds: np.ndarray


def assign(priors: Priors, boxes: np.ndarray, valid: np.ndarray | None = None) -> Assigned:
    """ATSS of one image.

    boxes: (G,4) corners in px, G may be 0. valid: (A,) bool, priors of cells that the image has; None: all.
    An object may get no prior. Of equally near candidates the first are taken, of equal overlaps the first object.
    UsageError where a box has no area.
    """
    boxes = checked(boxes)
    objects, best = np.full(len(priors.centres), -1), np.zeros(len(priors.centres))
    usable = np.arange(len(priors.centres)) if valid is None else np.flatnonzero(valid)
    levels = np.split(usable, np.searchsorted(usable, np.cumsum(priors.counts)[:-1]))
    corners, thresholds = priors.boxes, np.empty(len(boxes))
    for index, box in enumerate(boxes):
        nearest = np.concatenate([level[_nearest(priors.centres[level], box)] for level in levels])
        overlap = _iou(corners[nearest], box)
        # n - 1, as the published program's standard deviation has it.
        thresholds[index] = overlap.mean() + (overlap.std(ddof=1) if len(nearest) > 1 else 0)
        centres = priors.centres[nearest]
        within = np.minimum(centres - box[:2], box[2:] - centres).min(axis=1) > _MARGIN
        chosen = within & (overlap >= thresholds[index]) & (overlap > best[nearest])
        objects[nearest[chosen]], best[nearest[chosen]] = index, overlap[chosen]
    return Assigned(objects, thresholds)


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(K,) intersection over union of boxes (K,4) with a box (4,), float64, by which thresholds are made."""
    shared = np.maximum(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0).prod(axis=1)
    return shared / (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2]) - shared)


def _nearest(centres: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Numbers of the centres (K,2) nearest to a box's, at most nine, the first of equally near ones first."""
    distances = np.square(centres - (box[:2] + box[2:]) / 2).sum(axis=1)
    return np.argsort(distances, kind="stable")[:_CANDIDATES]


def checked(boxes: np.ndarray) -> np.ndarray:
    """Boxes (G,4) as float64. UsageError where one has no area."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    flat = ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if flat.any():
        shown = ", ".join(f"{value:g}" for value in boxes[flat][0])
        raise UsageError(f"the box {shown} (x1, y1, x2, y2 in px) has no area: correct or remove it")
    return boxes
