"""GFL's network: a backbone's maps, the feature pyramid and the head that all its levels share.

The pyramid is that of FPN (Lin et al., arXiv 1612.03144) with two coarser levels on top; the head that of GFL (Li et
al., arXiv 2006.04388), after ATSS (arXiv 1912.02424): one prior a cell, no centerness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mxnet as mx
from gluoncv.model_zoo import get_model
from mxnet.gluon import HybridBlock, nn
from mxnet.ndarray import NDArray

from gan_kd.detectors.base import Extractor, Head, Level, Maps
from gan_kd.detectors.gfl import priors
from gan_kd.detectors.gfl.layers import GroupNorm, Scale
from gan_kd.detectors.gfl.priors import STRIDES
from gan_kd.gluon import weights
from gan_kd.gluon.contexts import full
from gan_kd.recipe import Gfl

#: Strides of the backbone's maps C3, C4, C5.
TAPPED = STRIDES[:3]
_UNIFORM = mx.init.Xavier("uniform", "avg", 3)  # of gain 1: as far as sqrt(6 / (inputs + outputs))
#: Probability of a class that a fresh head predicts everywhere (Lin et al., arXiv 1708.02002, section 4.1).
_PRIOR = 0.01


class Backbone(HybridBlock):
    """Image (N,3,H,W) float32 -> C3, C4, C5: the last maps of strides 8, 16 and 32.

    features: the `features` of a GluonCV MobileNet or ResNet v1, whose parameters keep their names in files, so that
    ImageNet weights fit. channels: of the three maps.
    """

    def __init__(self, features: nn.HybridSequential) -> None:
        super().__init__()
        size = 2 * STRIDES[-1]
        x, outputs = mx.sym.var("data"), []
        for layer in features:
            x = layer(x)
            outputs.append(x)
        graph = mx.sym.Group(outputs)
        arguments, shapes, states = graph.infer_shape(data=(1, 3, size, size))
        known = dict(zip(graph.list_arguments() + graph.list_auxiliary_states(), arguments + states))
        for name, parameter in features.collect_params().items():
            parameter.shape = known[name]
        sides = [shape[2] if len(shape) == 4 else 0 for shape in shapes]
        self.ends = [max(i for i, side in enumerate(sides) if side == size // stride) for stride in TAPPED]
        self.channels = [shapes[end][1] for end in self.ends]
        self._stem = max(i for i, side in enumerate(sides) if side == size // 4)
        self.features = nn.HybridSequential(prefix="")
        self.features.add(*list(features)[: self.ends[-1] + 1])

    def freeze_stem(self) -> None:
        """End the gradients of the layers up to the last one of stride 4."""
        for layer in self.features[: self._stem + 1]:
            layer.collect_params().setattr("grad_req", "null")

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.ends:
                maps.append(x)
        return maps


def backbone(name: str, freeze: bool = False) -> Backbone:
    """The backbone of a GluonCV network as shapes alone.

    freeze: its BatchNorm keeps the statistics that it has, and layers of stride 4 and less are not trained, as in the
    published program, which has 2 or 3 images a device.
    """
    built = Backbone(get_model(name, pretrained=False, norm_kwargs={"use_global_stats": freeze}).features)
    if freeze:
        built.freeze_stem()
    return built


class FPN(HybridBlock):
    """C3, C4, C5 -> P3..P7, (N,width,H,W) each, the sides of a level half of those of the one before, rounded up.

    channels: of C3, C4, C5. There is no activation anywhere, P6 and P7 included.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        with self.name_scope():
            self.lateral = nn.HybridSequential()
            self.output = nn.HybridSequential()
            self.extra = nn.HybridSequential()
            for count in channels:
                self.lateral.add(nn.Conv2D(width, 1, in_channels=count, weight_initializer=_UNIFORM))
                self.output.add(nn.Conv2D(width, 3, padding=1, in_channels=width, weight_initializer=_UNIFORM))
            for _ in STRIDES[len(channels) :]:
                self.extra.add(
                    nn.Conv2D(width, 3, strides=2, padding=1, in_channels=width, weight_initializer=_UNIFORM)
                )

    def hybrid_forward(self, F: Any, *maps: Any) -> Any:
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps)]
        for fine in range(len(merged) - 2, -1, -1):
            # Doubled, then cropped: a finer map with an odd side has one cell less.
            doubled = F.UpSampling(merged[fine + 1], scale=2, sample_type="nearest")
            merged[fine] = merged[fine] + F.slice_like(doubled, merged[fine], axes=(2, 3))
        levels = [output(x) for output, x in zip(self.output, merged)]
        for extra in self.extra:
            levels.append(extra(levels[-1]))
        return levels


class GFLExtractor(Extractor):
    """Image (N,3,H,W) float32 -> C3, C4, C5 of the backbone and P3..P7 of the neck, which the head takes.

    size: side of a square input in px; None where images differ in size. width: channels of the neck.
    """

    def __init__(self, backbone: Backbone, width: int, size: int | None) -> None:
        sides: list[int | None] = [None] * len(STRIDES)
        if size is not None:
            sides = [rows for rows, _ in priors.shapes(size, size)]
        neck = [Level("neck", width, stride, side) for stride, side in zip(STRIDES, sides)]
        tapped = [Level("backbone", count, *level[2:]) for count, level in zip(backbone.channels, neck)]
        super().__init__([*tapped, *neck], range(len(tapped), len(tapped) + len(neck)))
        self.backbone = backbone
        self.neck = FPN(backbone.channels, width)

    def load_backbone(self, name: str, path: str | Path) -> None:
        """Set the backbone from a .params file of the network `name`, its classifier aside. UsageError."""
        what = f"the backbone {name}"
        arrays, named = weights.read(path, what), self.backbone._collect_params_with_prefix()
        if not any("." in key for key in arrays):  # the names that Gluon saved before MXNet 1.3
            named = {parameter.name.partition("_")[2]: parameter for parameter in named.values()}
        own = {key: array for key, array in arrays.items() if not key.startswith(("output.", "dense"))}
        weights.assign(named, own, path, what)

    def hybrid_forward(self, F: Any, x: Any) -> list[Any]:
        maps = self.backbone(x)
        return [*maps, *self.neck(*maps)]


class Outputs(NamedTuple):
    """Predictions of a head on one device: class logits (n,A,C), box logits (n,A,4 (reg_max + 1))."""

    classes: NDArray
    boxes: NDArray


class GFLHead(Head):
    """P3..P7 -> class logits (N,A,classes) and box logits (N,A,4 (reg_max + 1)), float32.

    A priors, one a cell, level after level from P3, row after row. Classes are independent sigmoids, without a
    background. Box logits are those of the distances to the left, top, right and bottom edge, one edge after the other:
    a distribution over 0..reg_max strides each.

    settings: of which it takes width, channels of the levels and of both towers, convolutions of a tower, groups of
    GroupNorm, and reg_max.
    """

    def __init__(self, classes: Sequence[str], settings: Gfl) -> None:
        super().__init__()
        self.classes, self.settings = tuple(classes), settings
        width, convolutions, groups = settings.width, settings.convolutions, settings.groups
        with self.name_scope():
            self.class_tower = _tower(width, convolutions, groups)
            self.box_tower = _tower(width, convolutions, groups)
            start = mx.init.Constant(-math.log(1 / _PRIOR - 1))
            self.class_logits = _convolution(len(classes), width, bias_initializer=start)
            self.box_logits = _convolution(4 * (settings.reg_max + 1), width)
            self.scales = nn.HybridSequential()
            for _ in STRIDES:
                self.scales.add(Scale())

    def hybridize(self, active: bool = True, **settings: Any) -> None:
        """Stays as it is: compiled by itself it would lose the fast route of GroupNorm."""

    def outputs(self, maps: Maps) -> Outputs:
        """Class and box logits."""
        return Outputs(*map(full, self(*maps)))

    def hybrid_forward(self, F: Any, *levels: Any) -> Any:
        classes = [self.class_logits(self.class_tower(x)) for x in levels]
        boxes = [scale(self.box_logits(self.box_tower(x))) for scale, x in zip(self.scales, levels)]
        return _rows(F, classes), _rows(F, boxes)


def _convolution(channels: int, width: int, **settings: Any) -> nn.Conv2D:
    return nn.Conv2D(channels, 3, padding=1, in_channels=width, weight_initializer=mx.init.Normal(0.01), **settings)


def _tower(width: int, convolutions: int, groups: int) -> nn.HybridSequential:
    tower = nn.HybridSequential()
    with tower.name_scope():
        for _ in range(convolutions):
            tower.add(_convolution(width, width, use_bias=False), GroupNorm(width, groups), nn.Activation("relu"))
    return tower


def _rows(F: Any, maps: Sequence[Any]) -> Any:
    """Maps (N,K,H,W) as one array (N,A,K)."""
    rows = [F.transpose(x.reshape((0, 0, -1)), (0, 2, 1)) for x in maps]
    return F.concat(*rows, dim=1)
