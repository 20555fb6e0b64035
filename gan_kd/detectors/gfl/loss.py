"""GFL's losses: quality focal loss, distribution focal loss (Li et al., arXiv 2006.04388) and GIoU (arXiv 1902.09630).

Boxes and distances are in strides of the prior's level. All functions keep the dtype of the logits and wait for no
device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
from mxnet import autograd, nd
from mxnet.ndarray import NDArray

from gan_kd.data.batch import TrainBatch
from gan_kd.detectors.base import Detected, Maps
from gan_kd.detectors.gfl import priors
from gan_kd.detectors.gfl.network import GFLHead
from gan_kd.detectors.gfl.priors import Priors
from gan_kd.detectors.gfl.transform import UNUSED
from gan_kd.distributed.cluster import here
from gan_kd.gluon.sync_bn import summed

#: Weights of the box losses beside the quality focal loss.
GIOU, DFL = 2.0, 0.25
_LEAST = 1e-6  # of an area or a sum of weights that something is divided by: without a positive the loss is 0


class Positives(NamedTuple):
    """The positive priors of the samples on one device, P > 0 of them, sample after sample."""

    #: (P,) int32: sample * A + prior.
    rows: NDArray
    #: (P,) int32, from 0.
    labels: NDArray
    #: (P,2) and (P,4): centre of the prior and corners of its object, in strides.
    centres: NDArray
    boxes: NDArray
    #: (P,4): from the centre to the edges, held to what the bins can stand for.
    distances: NDArray


class Share(NamedTuple):
    """What a device has of a batch beside images: n samples, and the counts of the whole batch."""

    priors: Priors
    #: (n,A) int32, on the host as all arrays of NumPy: object of each prior, -1 background, -2 no image's.
    objects: np.ndarray
    #: (n,M,5) corners in px and label of each object, and (n,M) its ATSS threshold.
    truth: np.ndarray
    thresholds: np.ndarray
    positives: Positives | None
    #: (n,A) 0 for cells that no image fills, else 1; None where images fill all.
    used: NDArray | None
    #: `counted` of the whole batch.
    divisor: float


class Sums(NamedTuple):
    """Sums of one device, (1,) each; the whole batch divides them."""

    quality: NDArray
    giou: NDArray
    distribution: NDArray
    #: Of the positives' weights, without a gradient.
    weight: NDArray


class GFLLoss:
    """`qfl`, `giou` and `dfl` of a batch on every device, divided by the counts and weights of the whole batch."""

    def __init__(self, reg_max: int) -> None:
        self.reg_max = reg_max

    def prepare(self, batch: TrainBatch, contexts: Sequence[mx.Context]) -> list[Share]:
        """The positive priors of each device."""
        made = priors.make(priors.shapes(*batch.images.shape[:1:-1]))
        (count,) = here().total([counted(batch.targets[0])])
        shares = []
        arrays = (np.array_split(array.copy(), len(contexts)) for array in (*batch.targets, batch.truth))
        for objects, thresholds, truth, context in zip(*arrays, contexts):
            used = None if batch.extents is None else nd.array(objects != UNUSED, ctx=context)
            found = positives(made, objects, truth, self.reg_max, context)
            shares.append(Share(made, objects, truth, thresholds, found, used, count))
        return shares

    def shares(self, head: GFLHead, maps: Sequence[Maps], prepared: Sequence[Share]) -> Detected:
        """The losses through a head. `assigned` are `share`, and `weight`, that of the positives of the whole batch."""
        outputs = [head.outputs(part) for part in maps]
        found = [sums(*predicted, share.positives, share.used) for predicted, share in zip(outputs, prepared)]
        with autograd.pause():
            total = nd.maximum(here().sum("gfl_weight", summed([part.weight for part in found])[0]), _LEAST)
        named: dict[str, list[NDArray]] = {"qfl": [], "giou": [], "dfl": []}
        assigned: list[Mapping[str, Any]] = []
        for part, share in zip(found, prepared):
            weight = total.as_in_context(part.weight.context)
            for name, loss in weighted(part, share.divisor, weight).items():
                named[name].append(loss)
            assigned.append({"share": share, "weight": weight})
        return Detected(named, outputs, assigned)


def positives(
    priors: Priors,
    objects: np.ndarray,
    truth: np.ndarray,
    reg_max: int,
    context: mx.Context,
    dtype: str = "float32",
) -> Positives | None:
    """The positive priors of n samples; None where there are none.

    objects: (n,A) the object of each prior or -1; truth: (n,M,5) corners in px and label of each object.
    """
    samples, chosen = np.nonzero(objects >= 0)
    if not len(samples):
        return None
    strides = priors.strides[chosen, None]
    matched = truth[samples, objects[samples, chosen].astype(np.int64)]
    centres, boxes = priors.centres[chosen] / strides, matched[:, :4] / strides
    return Positives(
        nd.array(samples * objects.shape[1] + chosen, ctx=context, dtype="int32"),
        nd.array(matched[:, 4], ctx=context, dtype="int32"),
        *(nd.array(array, ctx=context, dtype=dtype) for array in (centres, boxes, encode(centres, boxes, reg_max))),
    )


def encode(centres: np.ndarray, boxes: np.ndarray, reg_max: int) -> np.ndarray:
    """(R,4) distances from centres (R,2) to left, top, right and bottom of boxes (R,4), in 0..reg_max - 0.1."""
    return np.clip(np.concatenate([centres - boxes[:, :2], boxes[:, 2:] - centres], axis=1), 0, reg_max - 0.1)


def counted(objects: np.ndarray) -> int:
    """What divides the quality focal loss: positives of all samples (n,A), at least one each."""
    return int(np.maximum((objects >= 0).sum(axis=1), 1).sum())


def sums(classes: NDArray, boxes: NDArray, found: Positives | None, used: NDArray | None = None) -> Sums:
    """Losses of one device, not divided yet.

    classes (n,A,C) and boxes (n,A,4 (reg_max + 1)): logits of the head. used: (n,A) 1 for cells of an image, 0 for
    those of the padding beside it; None: all are used.
    """
    rows = classes.reshape((-1, classes.shape[2]))
    if found is None:
        none = 0 * nd.sum(boxes.slice_axis(axis=2, begin=0, end=1))  # of the graph: it has a gradient, of zero
        return Sums(_focal(rows, nd.zeros_like(rows), used), none, none, none.detach())
    logits = taken(boxes, found.rows)
    overlap, giou = overlaps(decode(found.centres, integral(logits)), found.boxes)
    with autograd.pause():
        weight = weights(classes, found.rows)
        quality = nd.scatter_nd(overlap.detach(), nd.stack(found.rows, found.labels), shape=rows.shape)
    bins = logits.reshape((4 * len(logits), -1))
    edges = distribution_focal(bins, found.distances.reshape((-1,))).reshape((-1, 4))
    return Sums(
        _focal(rows, quality, used),
        nd.sum((1 - giou) * weight),
        nd.sum(nd.mean(edges, axis=1) * weight),
        nd.sum(weight),
    )


def _focal(rows: NDArray, quality: NDArray, used: NDArray | None) -> NDArray:
    each = quality_focal(rows, quality)
    return nd.sum(each if used is None else each * used.reshape((-1,)))


def weighted(part: Sums, count: float, weight: NDArray) -> dict[str, NDArray]:
    """The losses of one device's sums, which over all devices add up to those of the batch.

    count: `counted` of the whole batch; weight: (1,) sum of the positives' weights in it, not 0.
    """
    return {
        "qfl": part.quality / count,
        "giou": part.giou / weight * GIOU,
        "dfl": part.distribution / weight * DFL,
    }


def taken(logits: NDArray, rows: NDArray) -> NDArray:
    """(P,K) rows sample * A + prior of logits (n,A,K)."""
    return nd.take(logits.reshape((-1, logits.shape[2])), rows)


def weights(classes: NDArray, rows: NDArray) -> NDArray:
    """(P,) what each positive counts in box losses: the greatest class score that is predicted there, a constant.

    classes: (n,A,C) logits; rows: as of `taken`.
    """
    with autograd.pause():
        return nd.max(nd.sigmoid(taken(classes, rows)), axis=1)


def quality_focal(logits: NDArray, quality: NDArray) -> NDArray:
    """(R,) quality focal loss of rows (R,C), equation 5 with beta 2, summed over classes.

    quality: (R,C) IoU of the predicted box at the object's class, 0 elsewhere.
    """
    # softrelu, since relu(x) + log1p(exp(-|x|)) has the wrong gradient at 0.
    entropy = nd.Activation(logits, act_type="softrelu") - logits * quality
    return nd.sum(entropy * nd.square(nd.sigmoid(logits) - quality), axis=1)


def distribution_focal(logits: NDArray, distance: NDArray) -> NDArray:
    """(R,) distribution focal loss of rows (R,reg_max + 1) for distances (R,) below reg_max, equation 6."""
    lower = nd.floor(distance)
    logs = nd.log_softmax(logits, axis=1)
    above = distance - lower
    return (above - 1) * nd.pick(logs, lower, axis=1) - above * nd.pick(logs, lower + 1, axis=1)


def integral(logits: NDArray) -> NDArray:
    """(R,4) expected distances of box logits (R,4 (reg_max + 1)), equation 4."""
    bins = logits.shape[1] // 4
    shares = nd.softmax(logits.reshape((-1, bins)), axis=1)
    steps = nd.arange(bins, ctx=logits.context, dtype=logits.dtype)
    return nd.dot(shares, steps).reshape((-1, 4))


def decode(centres: NDArray, distance: NDArray) -> NDArray:
    """(R,4) corners from centres (R,2) and distances (R,4) to left, top, right, bottom."""
    first = centres - distance.slice_axis(axis=1, begin=0, end=2)
    last = centres + distance.slice_axis(axis=1, begin=2, end=4)
    return nd.concat(first, last, dim=1)


def overlaps(boxes: NDArray, others: NDArray) -> tuple[NDArray, NDArray]:
    """IoU and GIoU, (R,) each, of corners (R,4) row by row."""
    shared = _area(nd.maximum(_first(boxes), _first(others)), nd.minimum(_last(boxes), _last(others)))
    own = [_area(_first(x), _last(x)) for x in (boxes, others)]
    union = nd.maximum(own[0] + own[1] - shared, _LEAST)
    around = _area(nd.minimum(_first(boxes), _first(others)), nd.maximum(_last(boxes), _last(others)))
    around = nd.maximum(around, _LEAST)
    iou = shared / union
    return iou, iou - (around - union) / around


def _first(boxes: NDArray) -> NDArray:
    return boxes.slice_axis(axis=1, begin=0, end=2)


def _last(boxes: NDArray) -> NDArray:
    return boxes.slice_axis(axis=1, begin=2, end=4)


def _area(first: NDArray, last: NDArray) -> NDArray:
    """(R,) areas between two corners (R,2); 0 where they have changed sides."""
    sides = nd.maximum(last - first, 0)  # not relu: at 0 it has a gradient, by which a flat box can grow
    width, height = (sides.slice_axis(axis=1, begin=i, end=i + 1).reshape((-1,)) for i in (0, 1))
    return width * height
