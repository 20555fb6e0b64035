"""Where a student learns from its teacher: regions of priors that follow from objects or from both networks' scores.

Priors and objects are boxes (K,4) of corners in px, in NumPy; every prior is a cell of a map.
"""

from __future__ import annotations

import numpy as np
from gluoncv.utils.bbox import bbox_iou
from mxnet import autograd, nd
from mxnet.ndarray import NDArray


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


def fine_grained(priors: np.ndarray, boxes: np.ndarray, share: float = 0.5) -> np.ndarray:
    """(A,) bool: priors whose IoU with an object is above `share` of the object's best (Wang et al., arXiv 1906.03609,
    section 3.1)."""
    overlap = bbox_iou(priors, boxes)
    return (overlap > share * overlap.max(axis=0)).any(axis=1)


def general_instances(
    teacher: NDArray,
    student: NDArray,
    teacher_boxes: NDArray,
    student_boxes: NDArray,
    count: int = 10,
    overlap: float = 0.3,
) -> NDArray:
    """(n,A) 0 or 1: the priors of one level where the networks' class scores differ most, at most `count` an image.

    General Instance Distillation (Dai et al., arXiv 2103.02340), section 3.1: a prior's box is that of the network
    with the greater score, and a box falls to one of greater difference that overlaps it by more than `overlap`.

    teacher, student: class logits (n,A,C); their boxes (n,A,4) corners. Without a gradient.
    """
    with autograd.pause():
        apart = nd.sigmoid(teacher) - nd.sigmoid(student)
        most = nd.argmax(nd.abs(apart), axis=2)
        surer = nd.pick(apart, most, axis=2).expand_dims(2) >= 0
        boxes = surer * teacher_boxes + (1 - surer) * student_boxes
        samples, priors = most.shape
        numbers = nd.broadcast_like(nd.arange(priors, ctx=apart.context, dtype=apart.dtype).expand_dims(0), most)
        rows = nd.concat(numbers.expand_dims(2), nd.max(nd.abs(apart), axis=2, keepdims=True), boxes, dim=2)
        kept = nd.contrib.box_nms(rows, overlap_thresh=overlap, valid_thresh=0, score_index=1, coord_start=2)
        chosen = kept.slice_axis(axis=1, begin=0, end=min(count, priors)).slice_axis(axis=2, begin=0, end=1)
        return nd.sum(nd.broadcast_equal(chosen, numbers.expand_dims(1)), axis=1)
