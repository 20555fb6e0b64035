"""Which RoIs the second stage of Faster R-CNN is trained on, and what it should say of them.

GluonCV's sampler draws from MXNet's generator, whose state can be neither read nor set, and GluonCV's targets are
compiled for one number of images. Here the loader's draws come in as an array, so that what is sampled for an image
follows from the seed, the epoch and the image alone, whatever the devices, and any number of images passes.
"""

from __future__ import annotations

from typing import Any

from gluoncv.nn.bbox import BBoxBatchIOU
from gluoncv.nn.coder import MultiClassEncoder
from mxnet.gluon import HybridBlock

STDS = (0.1, 0.1, 0.2, 0.2)  # divisors of the encoded offsets, of centre and size


def rows_of(F: Any, x: Any, index: Any) -> Any:
    """Rows x[b, index[b, k]] of x (B,N,...), index (B,K) -> (B,K,...)."""
    image = F.broadcast_like(F.contrib.arange_like(index, axis=0).expand_dims(1), index)
    return F.gather_nd(x, F.stack(image, index))


class RoISampler(HybridBlock):
    """Proposals (B,P,5) score and corners, boxes (B,M,4), draws (B,>=P+M) in [0,1) -> RoIs, samples, matches.

    RoIs (B,S,4), drawn from the proposals and the boxes; samples (B,S): 1 positive, -1 negative, 0 to ignore; matches
    (B,S): which box. Rows of -1 are no proposals and no boxes. Equal to GluonCV's RCNNTargetSampler for equal draws,
    with its way of drawing: the positives first, which give way to others where there are too few; then the rest from
    those that stand behind them in the shuffled row, so that an RoI may be taken twice.
    """

    def __init__(self, samples: int, positive_iou: float, positive_share: float) -> None:
        super().__init__()
        self.samples, self.positive_iou = samples, positive_iou
        self.positives = round(samples * positive_share)
        with self.name_scope():
            self.iou = BBoxBatchIOU()

    def hybrid_forward(self, F, proposals, boxes, draws):  # type: ignore[no-untyped-def]
        scores = F.slice_axis(proposals, axis=-1, begin=0, end=1)
        there = F.sign(F.sum(boxes, axis=-1, keepdims=True) + 1)
        rois = F.concat(F.slice_axis(proposals, axis=-1, begin=1, end=None), boxes, dim=1)
        scores = F.squeeze(F.concat(scores, there, dim=1), axis=-1)
        iou = self.iou(rois, boxes)
        overlap, matches = F.max(iou, axis=-1), F.argmax(iou, axis=-1)
        ignored, negative, positive = 0 * F.ones_like(overlap), 2 * F.ones_like(overlap), 3 * F.ones_like(overlap)
        kind = F.where(scores < 0, ignored, negative)
        kind = F.where(overlap >= self.positive_iou, positive, kind)

        index = F.argsort(F.slice_like(draws, overlap), axis=1)
        kind, matches = rows_of(F, kind, index), rows_of(F, matches, index)
        first = F.slice_axis(F.argsort(kind, axis=1, is_ascend=False), axis=1, begin=0, end=self.positives)
        rest = {"axis": 1, "begin": self.positives, "end": None}
        other = F.slice_axis(kind, **rest)
        order = F.argsort(F.where(other == 2, other + 2, other), axis=1, is_ascend=False)  # negatives before positives
        second = F.slice_axis(order, axis=1, begin=0, end=self.samples - self.positives) + self.positives
        chosen = F.concat(first, second, dim=1)
        kind, matches, index = [rows_of(F, x, chosen) for x in (kind, matches, index)]
        samples = F.where(kind == 3, F.ones_like(kind), kind)
        samples = F.where(kind == 2, -F.ones_like(kind), samples)

        rois = rows_of(F, rois, index)
        left, top, right, bottom = F.split(rois, axis=-1, num_outputs=4, squeeze_axis=True)
        by_area = F.argsort((right - left) * (bottom - top), axis=1)
        return tuple(rows_of(F, x, by_area) for x in (rois, samples, matches))


class RoITargets(HybridBlock):
    """RoIs (B,S,4), samples and matches (B,S), labels (B,M,1), boxes (B,M,4) -> targets of the second stage.

    Class targets (B,S), 0 for background, -1 to ignore; for the P RoIs that may be positive box targets and their masks
    (B,P,C,4), of which only the row of the object's class counts, and which RoIs these are (B,P). Equal to GluonCV's
    RCNNTargetGenerator.
    """

    def __init__(self, classes: int, positives: int) -> None:
        super().__init__()
        self.classes, self.positives = classes, positives
        with self.name_scope():
            self.encoder = MultiClassEncoder()

    def hybrid_forward(self, F, rois, samples, matches, labels, boxes):  # type: ignore[no-untyped-def]
        class_targets = self.encoder(samples, matches, labels)
        one = F.ones_like(F.reshape(F.slice(rois, begin=(0, 0, 0), end=(1, 1, 1)), (1,)))
        stds = F.concat(*[one * std for std in STDS], dim=0)
        targets, masks = F.contrib.box_encode(samples, matches, rois, boxes, F.zeros_like(stds), stds)
        by_box = F.broadcast_like(F.reshape(labels, (0, 1, -1)), matches, lhs_axes=1, rhs_axes=1)
        label = F.expand_dims(F.pick(by_box, matches, axis=2), 2)
        same = F.broadcast_equal(label, F.reshape(F.arange(self.classes), (1, 1, -1)))
        order = F.argsort(F.slice_axis(masks, axis=-1, begin=0, end=1), axis=1, is_ascend=False)
        chosen = F.slice_axis(F.squeeze(order, axis=2), axis=1, begin=0, end=self.positives)
        targets, masks, same = [rows_of(F, x, chosen) for x in (targets, masks, same)]
        targets = F.broadcast_axis(F.expand_dims(targets, 2), axis=2, size=self.classes)
        masks = F.broadcast_mul(F.expand_dims(masks, 2), F.broadcast_axis(F.expand_dims(same, 3), axis=3, size=4))
        return class_targets, targets, masks, chosen
