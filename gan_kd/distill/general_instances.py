"""Where two networks differ most: the region of General Instance Distillation (Dai et al., arXiv 2103.02340)."""

from __future__ import annotations

from mxnet import autograd, nd
from mxnet.ndarray import NDArray


def general_instances(
    teacher: NDArray,
    student: NDArray,
    teacher_boxes: NDArray,
    student_boxes: NDArray,
    count: int = 10,
    overlap: float = 0.3,
) -> NDArray:
    """(n,A) 0 or 1: the priors of one level where the networks' class scores differ most, at most `count` an image.

    Section 3.1: a prior's box is that of the network with the greater score, and a box falls to one of greater
    difference that overlaps it by more than `overlap`.

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
