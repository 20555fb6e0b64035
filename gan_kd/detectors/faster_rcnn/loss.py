"""The four losses of Faster R-CNN as shares of the whole batch, so that the sum over devices is one device's loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import nd
from mxnet.gluon import HybridBlock
from mxnet.ndarray import NDArray

from gan_kd.data.batch import TrainBatch
from gan_kd.detectors.base import Detected, Maps
from gan_kd.detectors.faster_rcnn.network import Head, Outputs
from gan_kd.distributed.cluster import here
from gan_kd.gluon.contexts import full, split
from gan_kd.gluon.sync_bn import summed

NAMES = ("rpn_conf", "rpn_loc", "conf", "loc")


class FasterRCNNLoss:
    """The four losses as the engine wants them: on every device, over the counts of the whole batch."""

    def __init__(self) -> None:
        self.loss = FourLosses()
        self.loss.hybridize(static_alloc=True)

    def prepare(self, batch: TrainBatch, contexts: Sequence[mx.Context]) -> list[tuple[NDArray, ...]]:
        """Of each device extents, truth and draws; RPN labels, offsets and 1 / sampled anchors of the whole batch."""
        assert batch.extents is not None  # a Bounded size has them
        labels, offsets, draws = batch.targets
        (count,) = here().total([np.count_nonzero(labels >= 0)])
        flat = labels.reshape(len(labels), -1), offsets.reshape(len(labels), -1, 4)
        arrays = [split(array, contexts) for array in (batch.extents, batch.truth, draws, *flat)]
        scales = [nd.array([1 / max(count, 1)], ctx=context) for context in contexts]
        return list(zip(*arrays, scales))

    def shares(self, head: Head, maps: Sequence[Maps], prepared: Sequence[tuple[NDArray, ...]]) -> Detected:
        """`rpn_conf`, `rpn_loc`, `conf` and `loc`; the head's Outputs."""
        outputs = [Outputs(*map(full, head(*part, *inputs))) for part, (*inputs, _, _, _) in zip(maps, prepared)]
        counts = summed([sampled(part.class_targets) for part in outputs])
        if here().distributed:
            counts = [here().sum("regions", count) for count in counts[:1]] * len(counts)
        losses = []
        for part, (*_, labels, offsets, per_anchor), count in zip(outputs, prepared, counts):
            per_roi = 1 / nd.maximum(count.as_in_context(labels.context), 1)
            losses.append(self.loss(*part[:-1], labels, offsets, per_anchor, per_roi))
        return Detected({name: list(shares) for name, shares in zip(NAMES, zip(*losses))}, outputs)


class FourLosses(HybridBlock):
    """Classification and boxes of the RPN, classification and boxes of the second stage: four scalars (1,).

    GluonCV's, but over the counts of the whole batch: its network divides a device's losses by the device's counts and
    multiplies them by its images. Boxes are divided by all that is sampled, not by the positives, as there.
    """

    def hybrid_forward(self, F: Any, *inputs: Any) -> tuple[Any, ...]:
        """inputs: the head's Outputs but the RoIs; RPN labels (B,N), -1 to ignore, offsets (B,N,4); two scales (1,).

        The two scales are 1 / sampled anchors and 1 / sampled RoIs of the whole batch.
        """
        (rpn_scores, rpn_boxes, class_scores, box_offsets, class_targets, box_targets, box_masks, *rest) = inputs
        labels, offsets, per_anchor, per_roi = rest
        # Sigmoid cross-entropy of logits, in the form that cannot overflow.
        entropy = F.relu(rpn_scores) - rpn_scores * labels + F.Activation(-F.abs(rpn_scores), act_type="softrelu")
        rpn_conf = F.sum(F.where(labels >= 0, entropy, F.zeros_like(entropy)))
        # Huber with a corner at 1/9 is smooth L1 with sigma 3.
        distance = F.sum(F.smooth_l1(rpn_boxes - offsets, scalar=3.0), axis=-1)
        rpn_loc = F.sum(F.where(labels > 0, distance, F.zeros_like(distance)))
        entropy = -F.pick(F.log_softmax(class_scores, axis=-1), F.relu(class_targets), axis=-1)
        conf = F.sum(F.where(class_targets >= 0, entropy, F.zeros_like(entropy)))
        loc = F.sum(F.smooth_l1(box_offsets - box_targets, scalar=1.0) * box_masks)
        return rpn_conf * per_anchor, rpn_loc * per_anchor, conf * per_roi, loc * per_roi


def sampled(targets: Any) -> Any:
    """How many labels or class targets, of any shape, take part: an array (1,), without a wait for the device."""
    return (targets >= 0).sum()
