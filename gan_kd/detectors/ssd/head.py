"""The SSD head: class and box predictors, their anchors, and the decoder (paper, algorithm, steps 1 and 4).

GluonCV's SSD returns predictions while training and detections otherwise, and once hybridized it keeps the
graph of the mode that it ran first. Here head and decoder are separate blocks, and neither branches.
"""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
import numpy as np
from gluoncv.nn.predictor import ConvPredictor
from mxnet.gluon import Constant, HybridBlock, Parameter, nn


class SSDHead(HybridBlock):
    """Maps (N,C_i,S_i,S_i) -> cls_preds (N,A,classes+1) logits, box_preds (N,A,4) offsets, all float32.

    Class 0 is the background. Anchors, A of them, are ordered by map, then by row, then by cell. The blocks
    are those of a GluonCV SSD, with its parameters and their names in a file.
    """

    def __init__(
        self,
        class_predictors: nn.HybridSequential,
        box_predictors: nn.HybridSequential,
        anchors: Sequence[Constant],
        box_decoder: HybridBlock,
        classes: Sequence[str],
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.class_predictors = class_predictors
        self.box_predictors = box_predictors
        self.box_decoder = box_decoder
        self.allocated = list(anchors)  # (1,1,H,W,4a) for each map, larger than the map

    @property
    def contexts(self) -> list[mx.Context]:
        """Where its parameters live."""
        return self.class_predictors[0].predictor.weight.list_ctx()

    def anchors(self, sizes: Sequence[int]) -> np.ndarray:
        """Anchors float32 (A,4), centre x, centre y, width, height in px, for square maps of these sides."""
        arrays = [anchors.data(anchors.list_ctx()[0]).asnumpy() for anchors in self.allocated]
        maps = [array[:, :, :side, :side].reshape(-1, 4) for array, side in zip(arrays, sizes)]
        return np.concatenate(maps)

    def weights(self) -> dict[str, Parameter]:
        """Parameters, and the anchors as allocated, by their names in a file of GluonCV."""
        anchors = {f"anchor_generators.{i}.anchors": anchors for i, anchors in enumerate(self.allocated)}
        return {**self._collect_params_with_prefix(), **anchors}

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        def rows(predictors, width):  # type: ignore[no-untyped-def]
            flat = [F.flatten(F.transpose(predict(x), (0, 2, 3, 1))) for predict, x in zip(predictors, maps)]
            return F.concat(*flat, dim=1).reshape((0, -1, width))

        return rows(self.class_predictors, len(self.classes) + 1), rows(self.box_predictors, 4)


class SSDDecoder(HybridBlock):
    """cls_preds, box_preds of a head -> ids (N,K,1), scores (N,K,1), boxes (N,K,4), corners in input px.

    Rows are ordered by score after non-maximum suppression within each class; what is not used is -1.
    Bit-equal to the detections of GluonCV's SSD, but where the scores ranked nms_topk and next are equal.

    sizes: sides of the maps. nms: overlap in (0,1) above which the weaker of two boxes falls; nms_topk:
    boxes that take part (-1: all); post_nms: K.
    """

    def __init__(
        self, head: SSDHead, sizes: Sequence[int], nms: float = 0.45, nms_topk: int = 400, post_nms: int = 100
    ) -> None:
        super().__init__()
        anchors = head.anchors(sizes)
        self.count, self.candidates = len(anchors), len(anchors) * len(head.classes)
        self.nms = {"overlap_thresh": nms, "topk": nms_topk, "valid_thresh": 0.01}
        self.post_nms = post_nms
        with self.name_scope():
            self.anchors = self.params.get_constant("anchors", anchors[None])
            self.anchors.initialize(ctx=head.contexts)
            self.box_decoder = head.box_decoder

    def hybrid_forward(self, F, cls_preds, box_preds, anchors):  # type: ignore[no-untyped-def]
        boxes = self.box_decoder(box_preds, anchors)
        scores = F.softmax(cls_preds, axis=-1).slice_axis(axis=-1, begin=1, end=None)
        # Candidate c * A + a is anchor a as class c. Those that take part are taken out first: suppression would
        # copy and sort rows of all. They stay in the order of candidates, which decides between equal scores.
        scores = F.flatten(F.transpose(scores, (0, 2, 1)))
        scores = F.where(scores > self.nms["valid_thresh"], scores, F.zeros_like(scores))  # nan cannot be sorted
        wanted = max(self.nms["topk"], self.post_nms)
        if self.nms["topk"] > 0 and wanted < self.candidates:
            chosen = F.sort(F.topk(scores, k=wanted, dtype="int32"), axis=1)
        else:
            all_ = F.cast(F.contrib.arange_like(scores, axis=1), "int32")
            chosen = F.broadcast_like(all_.expand_dims(0), scores)
        image = F.cast(F.contrib.arange_like(chosen, axis=0), "int32")
        image = F.broadcast_like(image.expand_dims(1), chosen)
        anchor = chosen % self.count
        rows = F.concat(
            (F.cast(chosen - anchor, "float32") / self.count).expand_dims(2),
            F.gather_nd(scores, F.stack(image, chosen)).expand_dims(2),
            F.gather_nd(boxes, F.stack(image, anchor)),
            dim=2,
        )
        rows = F.contrib.box_nms(rows, id_index=0, score_index=1, coord_start=2, **self.nms)
        rows = rows.slice_axis(axis=1, begin=0, end=self.post_nms)
        return tuple(rows.slice_axis(axis=2, begin=i, end=j) for i, j in ((0, 1), (1, 2), (2, 6)))


def new_head(head: SSDHead) -> SSDHead:
    """A head with parameters of its own, equal to those of the given one, and on the same contexts.

    The student's head starts from the teacher's and is trained further (paper, algorithm, step 4).
    """
    copied, given = untrained_head(head), head._collect_params_with_prefix()
    for name, parameter in copied._collect_params_with_prefix().items():
        parameter.set_data(given[name].data(given[name].list_ctx()[0]))
    return copied


def untrained_head(head: SSDHead) -> SSDHead:
    """A head of the given one's layers and anchors on the same contexts, its weights drawn as a new SSD's are.

    It follows mx.random.seed. Beside a head of `new_head` it tells what the layers give from what the weights give.
    """
    return SSDHead(
        _drawn(head.class_predictors),
        _drawn(head.box_predictors),
        head.allocated,
        head.box_decoder,
        head.classes,
    )


def _drawn(predictors: nn.HybridSequential) -> nn.HybridSequential:
    """Predictors of the same shapes, by the rule that each of GluonCV's has for its own weights."""
    copies = nn.HybridSequential()
    with copies.name_scope():
        for predictor in predictors:
            old = predictor.predictor
            filters, channels, *kernel = old.weight.shape
            padding = tuple(side // 2 for side in kernel)
            new = ConvPredictor(filters, tuple(kernel), padding, in_channels=channels)
            new.initialize(ctx=old.weight.list_ctx())
            copies.add(new)
    return copies
