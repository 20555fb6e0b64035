"""Where a student learns localization from its teacher: regions of priors around objects.

Priors and objects are boxes (K,4) of corners in px. NumPy alone, since the loader's workers compute them.
"""

from __future__ import annotations

import numpy as np


def valuable(
    priors: np.ndarray,
    boxes: np.ndarray,
    thresholds: np.ndarray,
    gamma: float = 0.25,
    overlap: str = "prior",
    weight: str = "iou",
) -> np.ndarray:
    """(A,) float64: what each prior counts in the valuable localization region, 0 outside of it.

    Localization Distillation (Zheng et al., arXiv 2102.12252), algorithm 1. A prior lies in the region if for an
    object gamma * threshold <= X < threshold, where X = overlap - (distance of centres / diagonal of the box around
    both)^2.

    thresholds: (G,) IoU from which a candidate of each object is positive, as ATSS has them. overlap: 'union' makes X
    the DIoU of the paper; 'prior' divides the intersection by the prior's area, as the program of the paper's authors
    does. weight: 'one' (paper), or 'iou' (program) with the object that overlaps the prior most of those in whose
    region it lies.
    """
    region = np.zeros(len(priors))
    areas = np.prod(priors[:, 2:] - priors[:, :2], axis=1)
    for box, threshold in zip(boxes, thresholds):
        sides = np.minimum(priors[:, 2:], box[2:]) - np.maximum(priors[:, :2], box[:2])
        shared = np.maximum(sides, 0).prod(axis=1)
        union = areas + np.prod(box[2:] - box[:2]) - shared
        around = np.maximum(priors[:, 2:], box[2:]) - np.minimum(priors[:, :2], box[:2])
        apart = (priors[:, :2] + priors[:, 2:] - box[:2] - box[2:]) / 2
        value = shared / (union if overlap == "union" else areas)
        value -= np.square(apart).sum(axis=1) / np.square(around).sum(axis=1)
        ring = (gamma * threshold <= value) & (value < threshold)
        np.maximum(region, ring * (shared / union if weight == "iou" else 1.0), out=region)
    return region


def inside(centres: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(A,) bool: centres (A,2) strictly within one of the boxes (G,4)."""
    first, last = centres[:, None] > boxes[:, :2], centres[:, None] < boxes[:, 2:]
    return (first & last).all(axis=2).any(axis=1)
