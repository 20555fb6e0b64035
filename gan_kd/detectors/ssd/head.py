"""The SSD head: class and box predictors, their anchors, and the decoder (paper, algorithm, steps 1 and 4).

GluonCV's SSD returns predictions while training and detections otherwise, and once hybridized it keeps the
graph of the mode that it ran first. Here head and decoder are separate blocks, and neither branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
from gluoncv.nn.predictor import ConvPredictor
from mxnet.gluon import Constant, HybridBlock, Parameter, nn
from mxnet.ndarray import NDArray

from gan_kd.detectors.base import Decoder, Head, Maps
from gan_kd.detectors.suppression import Suppression
from gan_kd.gluon.contexts import full


class Outputs(NamedTuple):
    """Predictions on one device: logits (n, A, classes + 1), class 0 the background, and box offsets (n, A, 4)."""

    classes: NDArray
    boxes: NDArray


class SSDHead(Head):
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

    def corners(self, sizes: Sequence[int]) -> list[np.ndarray]:
        """The same by map: (side, side, a, 4) float32 corners in px."""
        per_cell = [anchors.shape[-1] // 4 for anchors in self.allocated]
        shapes = [(side, side, count) for side, count in zip(sizes, per_cell)]
        centre, size = np.split(self.anchors(sizes), 2, axis=1)
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        return [rows.reshape(*shape, 4) for rows, shape in zip(np.split(boxes, ends[:-1]), shapes)]

    def weights(self) -> dict[str, Parameter]:
        """Parameters, and the anchors as allocated, by their names in a file of GluonCV."""
        anchors = {f"anchor_generators.{i}.anchors": anchors for i, anchors in enumerate(self.allocated)}
        return {**self._collect_params_with_prefix(), **anchors}

    def outputs(self, maps: Maps) -> Outputs:
        """cls_preds and box_preds."""
        return Outputs(*map(full, self(*maps)))

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        def rows(predictors, width):  # type: ignore[no-untyped-def]
            flat = [F.flatten(F.transpose(predict(x), (0, 2, 3, 1))) for predict, x in zip(predictors, maps)]
            return F.concat(*flat, dim=1).reshape((0, -1, width))

        return rows(self.class_predictors, len(self.classes) + 1), rows(self.box_predictors, 4)


class SSDCandidates(HybridBlock):
    """cls_preds, box_preds of a head -> scores (N,A,classes) without background, boxes (N,A,4), corners in input px.

    sizes: sides of the maps.
    """

    def __init__(self, head: SSDHead, sizes: Sequence[int]) -> None:
        super().__init__()
        anchors = head.anchors(sizes)
        self.count = len(anchors)
        with self.name_scope():
            self.anchors = self.params.get_constant("anchors", anchors[None])
            self.anchors.initialize(ctx=head.contexts)
            self.box_decoder = head.box_decoder

    def hybrid_forward(self, F, cls_preds, box_preds, anchors):  # type: ignore[no-untyped-def]
        boxes = self.box_decoder(box_preds, anchors)
        return F.softmax(cls_preds, axis=-1).slice_axis(axis=-1, begin=1, end=None), boxes

    def to_onnx(self, nodes: Any) -> tuple[str, str]:
        """The same as ONNX nodes behind those of cls_preds and box_preds, as `gan_kd.export.onnx.Nodes` adds them."""
        cls_preds, box_preds = nodes.found
        anchors = self.anchors.data(mx.cpu()).asnumpy()
        stds = self.box_decoder._stds
        place, side = anchors[..., :2], anchors[..., 2:]
        scores = nodes.slice(nodes.add("Softmax", cls_preds, axis=-1), 1, np.iinfo(np.int64).max)
        shift = nodes.add("Mul", nodes.slice(box_preds, 0, 2), nodes.constant(side * stds[:2], np.float32))
        centre = nodes.add("Add", shift, nodes.constant(place, np.float32))
        growth = nodes.add("Exp", nodes.add("Mul", nodes.slice(box_preds, 2, 4), nodes.constant(stds[2:], np.float32)))
        half = nodes.add("Mul", growth, nodes.constant(side / 2, np.float32))
        return scores, nodes.add("Concat", nodes.add("Sub", centre, half), nodes.add("Add", centre, half), axis=2)


class SSDDecoder(Decoder):
    """cls_preds, box_preds of a head -> ids (N,K,1), scores (N,K,1), boxes (N,K,4), corners in input px.

    Bit-equal to the detections of GluonCV's SSD, but where the scores ranked nms_topk and next are equal.

    sizes: sides of the maps. nms, nms_topk, post_nms: as in Suppression.
    """

    def __init__(
        self, head: SSDHead, sizes: Sequence[int], nms: float = 0.45, nms_topk: int = 400, post_nms: int = 100
    ) -> None:
        candidates = SSDCandidates(head, sizes)
        super().__init__(candidates, Suppression(candidates.count, len(head.classes), nms, nms_topk, post_nms))


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
