"""YOLOv3 in parts: backbone and neck (image -> maps), head (maps -> predictions), decoder (-> scores and boxes).

GluonCV's YOLOV3 returns losses, predictions or detections by the mode that it runs in, and once hybridized it keeps the
graph of the first mode. Here each part is a block that does not branch. The parts are blocks of GluonCV's network, with
its parameters and their names in a file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
from gluoncv.model_zoo.yolo.yolo3 import YOLOV3, _upsample
from mxnet import autograd, nd
from mxnet.gluon import HybridBlock, nn
from mxnet.ndarray import NDArray

from gan_kd.data.sizes import Square
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.base import Decoder, Detector, Extractor, Head, Level, Maps, Parts
from gan_kd.detectors.suppression import Suppression
from gan_kd.detectors.yolo3.anchors import ANCHORS, STRIDES, anchor_boxes, anchor_count
from gan_kd.gluon.contexts import full

_EXAMPLE = 64  # px of an input whose maps tell the shapes


class Predictions(NamedTuple):
    """What the head says of every anchor: of stride 32, 16, 8, by row, by cell, by anchor of the cell."""

    boxes: NDArray  # (n, A, 4) corners in input px
    objectness: NDArray  # (n, A, 1) logits
    centres: NDArray  # (n, A, 2) logits of the place in the cell, x and y
    scales: NDArray  # (n, A, 2) log of width and height, by the anchor's
    classes: NDArray  # (n, A, classes) logits

    def certainty(self, cells: int) -> NDArray:
        """The greatest objectness x class probability in each cell of the map of so many cells, (n, cells)."""
        each, coarsest = ANCHORS.shape[1], self.boxes.shape[1] // anchor_count(STRIDES[-1])
        first = cells - coarsest  # anchors of coarser maps: three a cell, and each map has a quarter of the next
        rows = slice(first, first + each * cells)
        found = nd.sigmoid(self.objectness[:, rows, 0]) * nd.sigmoid(nd.max(self.classes[:, rows], axis=2))
        return nd.max(found.reshape((0, -1, each)), axis=2)


class YOLO3Extractor(Extractor):
    """Image (n, 3, H, W), H and W multiples of 32 -> six maps: backbone of stride 8, 16, 32, then fused of 8, 16, 32.

    A fused map is what the five convolutions of a detection block give, GluonCV's `route`; the head takes these.

    size: side of the square input in px; None where it varies.
    """

    def __init__(self, net: YOLOV3, size: int | None = None) -> None:
        super().__init__([], to_head=(3, 4, 5))
        self.stages = net.stages
        self.transitions = net.transitions
        self.yolo_blocks = nn.HybridSequential()
        for block in net.yolo_blocks:
            self.yolo_blocks.add(_Part(body=block.body))
        graph = mx.sym.Group(self(mx.sym.var("data")))
        maps = graph.infer_shape(data=(1, 3, _EXAMPLE, _EXAMPLE))[1]
        for index, (_, channels, side, _) in enumerate(maps):
            stride = _EXAMPLE // side
            self.levels.append(
                Level("neck" if index in self.to_head else "backbone", channels, stride, size and size // stride)
            )

    def hybrid_forward(self, F, x):  # type: ignore[no-untyped-def]
        backbone, fused = [], []
        for stage in self.stages:
            x = stage(x)
            backbone.append(x)
        for index, block in enumerate(self.yolo_blocks):
            if index:
                x = F.concat(_upsample(self.transitions[index - 1](x)), backbone[-1 - index], dim=1)
            x = block.body(x)
            fused.append(x)
        return [*backbone, *reversed(fused)]


class YOLO3Head(Head):
    """Fused maps of stride 8, 16, 32 -> `Predictions`, as a list."""

    def __init__(self, net: YOLOV3) -> None:
        super().__init__()
        self.classes = tuple(net.classes)
        self.yolo_blocks = nn.HybridSequential()
        for block in net.yolo_blocks:
            self.yolo_blocks.add(_Part(tip=block.tip))
        self.yolo_outputs = net.yolo_outputs

    @property
    def filters(self) -> list[int]:
        """Channels of the maps of stride 32, 16, 8."""
        return [block.tip[0].weight.shape[1] for block in self.yolo_blocks]

    def outputs(self, maps: Maps) -> Predictions:
        """`Predictions`."""
        return Predictions(*map(full, self(*maps)))

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        parts = []
        for block, output, x in zip(self.yolo_blocks, self.yolo_outputs, reversed(maps)):
            x = block.tip(x)
            with autograd.train_mode():  # else GluonCV's block, which holds no layer with a mode, tiles detections
                boxes, centres, scales, objectness, classes, _, _ = output(x)
            widths = (1, 2, 2, len(self.classes))
            rows = (part.reshape((0, -1, width)) for part, width in zip((objectness, centres, scales, classes), widths))
            parts.append((boxes, *rows))
        return [F.concat(*part, dim=1) for part in zip(*parts)]

    def to_onnx(self) -> HybridBlock:
        """Its convolutions alone."""
        return _Convolutions(self)


class _Convolutions(HybridBlock):
    """Fused maps of stride 8, 16, 32 -> what is predicted in every cell, (n, 3 (5 + classes), h, w), stride 32 first.

    MXNet's converter knows all of it; how GluonCV's block sorts these into anchors it does not.
    """

    def __init__(self, head: YOLO3Head) -> None:
        super().__init__()
        self.yolo_blocks = head.yolo_blocks
        self.yolo_outputs = head.yolo_outputs

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        blocks = zip(self.yolo_blocks, self.yolo_outputs, reversed(maps))
        return [output.prediction(block.tip(x)) for block, output, x in blocks]


class YOLO3Candidates(HybridBlock):
    """`Predictions` -> scores (n, A, classes), objectness x class, and boxes (n, A, 4), corners in input px.

    size: side of the square input, px, which the form in ONNX is for.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def hybrid_forward(self, F, boxes, objectness, centres, scales, classes):  # type: ignore[no-untyped-def]
        return F.broadcast_mul(F.sigmoid(classes), F.sigmoid(objectness)), F.identity(boxes)

    def to_onnx(self, nodes: Any) -> tuple[str, str]:
        """The same as ONNX nodes behind the head's convolutions, as `gan_kd.export.onnx.Nodes` adds them."""
        sides, each = [self.size // stride for stride in reversed(STRIDES)], ANCHORS.shape[1]
        maps = []
        for found, side in zip(nodes.found, sides):
            apart = nodes.add("Reshape", found, nodes.constant([0, each, -1, side**2]))
            rows = nodes.add("Transpose", apart, perm=(0, 3, 1, 2))
            maps.append(nodes.add("Reshape", rows, nodes.constant([0, each * side**2, -1])))
        rows = nodes.add("Concat", *maps, axis=1)
        anchors = [anchor_boxes(self.size // side, side, side).reshape(-1, 4) for side in sides]
        corners = np.concatenate(anchors)[None]
        strides = np.repeat([self.size // side for side in sides], [len(each) for each in anchors])[None, :, None]
        cell = (corners[..., :2] + corners[..., 2:] - strides) / 2
        place = nodes.add("Mul", nodes.add("Sigmoid", nodes.slice(rows, 0, 2)), nodes.constant(strides, np.float32))
        centre = nodes.add("Add", place, nodes.constant(cell, np.float32))
        growth = nodes.add("Exp", nodes.slice(rows, 2, 4))
        half = nodes.add("Mul", growth, nodes.constant((corners[..., 2:] - corners[..., :2]) / 2, np.float32))
        boxes = nodes.add("Concat", nodes.add("Sub", centre, half), nodes.add("Add", centre, half), axis=2)
        probabilities = nodes.add("Sigmoid", nodes.slice(rows, 4, np.iinfo(np.int64).max))
        objectness, classes = (nodes.slice(probabilities, *ends) for ends in ((0, 1), (1, np.iinfo(np.int64).max)))
        return nodes.add("Mul", classes, objectness), boxes


class _Part(HybridBlock):
    """A part of a detection block under its name there, which the names in a file begin with."""

    def __init__(self, **part: HybridBlock) -> None:
        super().__init__()
        for name, block in part.items():
            setattr(self, name, block)


def split(net: YOLOV3, size: int | None = None) -> tuple[YOLO3Extractor, YOLO3Head]:
    """Extractor, for inputs of `size` as it says, and head of a GluonCV YOLOv3; nothing is copied."""
    return YOLO3Extractor(net, size), YOLO3Head(net)


def join(
    parts: Parts, adapters: Adapters | None = None, nms: float = 0.45, nms_topk: int = 400, post_nms: int = 100
) -> Detector:
    """The detector of these parts, which are shared, for their square input; nms* as in Suppression."""
    assert isinstance(parts.sizes, Square)
    count = anchor_count(parts.sizes.side)
    suppression = Suppression(count, len(parts.head.classes), nms, nms_topk, post_nms)
    return Detector(parts, adapters, Decoder(YOLO3Candidates(parts.sizes.side), suppression))
