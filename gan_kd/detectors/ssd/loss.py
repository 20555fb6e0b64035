"""The SSD multibox loss without a wait for the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import nd
from mxnet.gluon import HybridBlock
from mxnet.ndarray import NDArray

from gan_kd.data.batch import TrainBatch
from gan_kd.detectors.base import Detected, Maps
from gan_kd.detectors.ssd.head import SSDHead
from gan_kd.distributed.cluster import here
from gan_kd.gluon.contexts import split

#: Hard negatives kept for each positive anchor (SSD, section 2.2).
NEGATIVES_PER_POSITIVE = 3


class MultiBoxLoss(HybridBlock):
    """L_conf and L_loc of SSD: cross-entropy with hard negative mining, smooth L1 on the positive anchors.

    Same values as GluonCV's SSDMultiBoxLoss, which reads the number of positives back from the device in every batch
    and so stops the engine there. Here the loader's targets, still on the host, give it.
    """

    def hybrid_forward(
        self, F: Any, class_scores: Any, box_offsets: Any, class_targets: Any, box_targets: Any, scale: Any
    ) -> tuple[Any, Any]:
        """Two scalars (1,) of one device, divided by the positives of the whole batch.

        class_scores (n, A, C + 1), box_offsets (n, A, 4), class_targets (n, A) with 0 for background, box_targets
        (n, A, 4), scale (1,): what `scale_of` gives for all devices together.
        """
        positive = class_targets > 0
        entropy = -F.pick(F.log_softmax(class_scores, axis=-1), class_targets, axis=-1)
        # Background anchors by falling loss; positives count as zero and come behind.
        rank = F.argsort(F.argsort(entropy * (positive - 1), axis=1), axis=1)
        counted = F.cast(positive, "float32")  # the dtype of ranks; a float16 could not count them
        quota = F.sum(counted, axis=1, keepdims=True) * NEGATIVES_PER_POSITIVE
        used = counted + F.broadcast_lesser(rank, quota) > 0
        conf = F.sum(F.where(used, entropy, F.zeros_like(entropy)))
        loc = F.sum(F.broadcast_mul(F.smooth_l1(box_offsets - box_targets, scalar=1.0), F.expand_dims(positive, -1)))
        return conf * scale, loc * scale


class SSDLoss:
    """L_conf and L_loc as the engine wants them: on every device, over the positive anchors of the whole batch."""

    def __init__(self) -> None:
        self.loss = MultiBoxLoss()
        self.loss.hybridize(static_alloc=True, static_shape=True)

    def prepare(self, batch: TrainBatch, contexts: Sequence[mx.Context]) -> list[tuple[NDArray, ...]]:
        """Class targets, box targets and scale of each device."""
        classes, boxes = (split(array, contexts) for array in batch.targets)
        (positives,) = here().total([np.count_nonzero(batch.targets[0] > 0)])
        scales = [nd.array([scale_of(positives)], ctx=context, dtype=batch.targets[0].dtype) for context in contexts]
        return list(zip(classes, boxes, scales))

    def shares(self, head: SSDHead, maps: Sequence[Maps], prepared: Sequence[tuple[NDArray, ...]]) -> Detected:
        """`conf` and `loc`. Assigned: `classes` (n, A), class + 1 at positive anchors, else 0; `offsets` (n, A, 4);
        `scale` (1,), which L_loc's sum is multiplied by."""
        outputs = [head.outputs(part) for part in maps]
        conf, loc = zip(*[self.loss(*predictions, *rest) for predictions, rest in zip(outputs, prepared)])
        assigned: list[Mapping[str, NDArray]] = [
            {"classes": classes, "offsets": boxes, "scale": scale} for classes, boxes, scale in prepared
        ]
        return Detected({"conf": list(conf), "loc": list(loc)}, outputs, assigned)


def positives_scale(class_targets: np.ndarray) -> float:
    """`scale_of` the positive anchors in a batch."""
    return scale_of(int((class_targets > 0).sum()))


def scale_of(positives: float) -> float:
    """1 / positive anchors in the whole batch, 0 where there is none (then the loss is 0, as GluonCV's)."""
    return 1 / positives if positives else 0.0
