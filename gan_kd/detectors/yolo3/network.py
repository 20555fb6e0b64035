"""YOLOv3 in parts: backbone and neck (image -> maps), head (maps -> predictions), decoder (-> scores and boxes).

GluonCV's YOLOV3 returns losses, predictions or detections by the mode that it runs in, and once hybridized it keeps the
graph of the first mode. Here each part is a block that does not branch. The parts are blocks of GluonCV's network, with
its parameters and their names in a file.
"""

from __future__ import annotations

from typing import NamedTuple

import mxnet as mx
from gluoncv.model_zoo.yolo.yolo3 import YOLOV3, _upsample
from mxnet import autograd
from mxnet.gluon import HybridBlock, Parameter, nn
from mxnet.ndarray import NDArray

_EXAMPLE = 64  # px of an input whose maps tell the shapes


class Predictions(NamedTuple):
    """What the head says of every anchor: of stride 32, 16, 8, by row, by cell, by anchor of the cell."""

    boxes: NDArray  # (n, A, 4) corners in input px
    objectness: NDArray  # (n, A, 1) logits
    centres: NDArray  # (n, A, 2) logits of the place in the cell, x and y
    scales: NDArray  # (n, A, 2) log of width and height, by the anchor's
    classes: NDArray  # (n, A, classes) logits


class YOLO3Extractor(HybridBlock):
    """Image (n, 3, H, W), H and W multiples of 32 -> six maps: backbone of stride 8, 16, 32, then fused of 8, 16, 32.

    A fused map is what the five convolutions of a detection block give: GluonCV's `route`.

    channels, strides: of each map.
    """

    def __init__(self, net: YOLOV3) -> None:
        super().__init__()
        self.stages = net.stages
        self.transitions = net.transitions
        self.yolo_blocks = nn.HybridSequential()
        for block in net.yolo_blocks:
            self.yolo_blocks.add(_Part(body=block.body))
        graph = mx.sym.Group(self(mx.sym.var("data")))
        maps = graph.infer_shape(data=(1, 3, _EXAMPLE, _EXAMPLE))[1]
        self.channels = [channels for _, channels, _, _ in maps]
        self.strides = [_EXAMPLE // side for _, _, side, _ in maps]

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


class YOLO3Head(HybridBlock):
    """Fused maps of stride 8, 16, 32 -> `Predictions`, as a list."""

    def __init__(self, net: YOLOV3) -> None:
        super().__init__()
        self.classes = tuple(net.classes)
        self.yolo_blocks = nn.HybridSequential()
        for block in net.yolo_blocks:
            self.yolo_blocks.add(_Part(tip=block.tip))
        self.yolo_outputs = net.yolo_outputs

    def start_objectness(self, bias: float) -> None:
        """Sets the bias of every anchor's objectness: GluonCV's is 0, which is an object at every other anchor.

        -4.6 is one at a hundredth of them (the prior of focal loss, arXiv 1708.02002, section 4.1).
        """
        for output in self.yolo_outputs:
            values = output.prediction.bias.data().asnumpy().reshape(-1, 5 + len(self.classes))
            values[:, 4] = bias
            output.prediction.bias.set_data(mx.nd.array(values.reshape(-1)))

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        parts = []
        for block, output, x in zip(self.yolo_blocks, self.yolo_outputs, reversed(maps)):
            x = block.tip(x)
            with autograd.train_mode():  # else GluonCV's block, which holds no layer with a mode, tiles detections
                boxes, centres, scales, objectness, classes, _, _ = output(x)
            rows = [part.reshape((0, -3, -1)) for part in (objectness, centres, scales, classes)]
            parts.append((boxes, *rows))
        return [F.concat(*part, dim=1) for part in zip(*parts)]


class YOLO3Decoder(HybridBlock):
    """`Predictions` -> scores (n, classes, A), objectness x class, and boxes (n, A, 4), corners in input px."""

    def hybrid_forward(self, F, boxes, objectness, centres, scales, classes):  # type: ignore[no-untyped-def]
        scores = F.broadcast_mul(F.sigmoid(classes), F.sigmoid(objectness))
        return F.transpose(scores, (0, 2, 1)), boxes


class _Part(HybridBlock):
    """A part of a detection block under its name there, which the names in a file begin with."""

    def __init__(self, **part: HybridBlock) -> None:
        super().__init__()
        for name, block in part.items():
            setattr(self, name, block)


def split(net: YOLOV3) -> tuple[YOLO3Extractor, YOLO3Head]:
    """Extractor and head of a GluonCV YOLOv3; they share its parameters, nothing is copied."""
    return YOLO3Extractor(net), YOLO3Head(net)


def parameters(extractor: YOLO3Extractor, head: YOLO3Head) -> dict[str, Parameter]:
    """Parameters, anchors and cells' places of both by their names in a file of GluonCV."""
    return {**extractor._collect_params_with_prefix(), **head._collect_params_with_prefix()}
