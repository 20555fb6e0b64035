"""Faster R-CNNs by the name of their backbone: any classifier of GluonCV with a map of stride 16."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import mxnet as mx
from gluoncv.model_zoo import get_model
from gluoncv.model_zoo.rcnn.faster_rcnn.faster_rcnn import FasterRCNN
from mxnet.gluon import Block, Constant, HybridBlock, nn

from gan_kd.detectors.faster_rcnn.network import Extractor, Head, split
from gan_kd.detectors.faster_rcnn.settings import STRIDE, of_gluoncv
from gan_kd.errors import UsageError
from gan_kd.gluon import weights
from gan_kd.gluon.initial import initialise
from gan_kd.recipe.faster_rcnn import FasterRCNN as Config

_FROZEN_STRIDE = 4
_POOLED = (nn.GlobalAvgPool2D, nn.AvgPool2D, nn.Flatten, nn.Dropout)  # what ends a classifier's features
_EVEN, _ODD = 256, 250  # px; the second tells maps that round up, as the targets assume, from those that round down


class Layers(NamedTuple):
    """A backbone cut behind its last layer of stride 16."""

    backbone: HybridBlock
    features: nn.HybridSequential
    top: nn.HybridSequential
    channels: int  # of the map


def build(backbone: str, classes: Sequence[str], config: Config, init: str = "random") -> tuple[Extractor, Head]:
    """Extractor and head of a Faster R-CNN, all parameters initialised on the CPU.

    For resnet50_v1b and resnet101_v1d they are those of GluonCV's zoo. The running statistics of BatchNorm are used in
    training too, and stay as they are; what else `config.frozen` names has no gradient.
    init: 'random' (He; follows mx.random.seed), or the path of a .params file with the backbone's parameters as GluonCV
    names them. Raises UsageError for a backbone that cannot carry one and for a wrong file.
    """
    extractor, head, layers = _assemble(backbone, classes, config)
    initialise([*extractor.collect_params().values(), *head.collect_params().values()])
    if init != "random":
        _load(layers, init, f"the backbone {backbone}")
    return extractor, head


def assemble(backbone: str, classes: Sequence[str], config: Config) -> tuple[Extractor, Head]:
    """What `build` gives, with the shapes of all parameters but no values in them."""
    return _assemble(backbone, classes, config)[:2]


def new_head(head: Head, trained: bool) -> Head:
    """A head of the given one's layers with parameters of its own: equal ones, or drawn at random."""
    copied = assemble(head.backbone, head.classes, head.config)[1]
    initialise(copied.collect_params().values())
    copied.collect_params().reset_ctx(head.contexts)
    given = head.weights()
    for name, parameter in copied.weights().items():
        if trained and not isinstance(parameter, Constant):
            parameter.set_data(given[name].data(head.contexts[0]))
    return copied


def freeze(extractor: Extractor, head: Head, frozen: str) -> None:
    """Take the gradient from what is not trained.

    frozen: 'published', the layers up to stride 4 and every BatchNorm, as GluonCV's networks on ResNet do; or
    'statistics', nothing but BatchNorm's, which have none.
    """
    if frozen == "statistics":
        return
    layers = list(extractor.features)
    fixed: list[Block] = [layer for layer, stride in zip(layers, _strides(layers)) if stride <= _FROZEN_STRIDE]
    for block in (*fixed, *_batch_norms(extractor), *_batch_norms(head)):
        block.collect_params().setattr("grad_req", "null")


def cut(backbone: str) -> Layers:
    """A classifier of GluonCV's zoo cut behind its last layer of stride 16; UsageError where it has none."""
    try:
        net = get_model(backbone, pretrained=False)
    except ValueError:
        raise UsageError(f"GluonCV's zoo has no backbone '{backbone}'") from None
    layers = [layer for layer in _layers(net) if not isinstance(layer, nn.Dense)]
    while layers and isinstance(layers[-1], _POOLED):
        layers.pop()
    strides = _strides(layers)
    count = next((index for index, stride in enumerate(strides) if stride > STRIDE), 0)
    if not count or strides[count - 1] != STRIDE:
        raise UsageError(f"{backbone} has no map of stride 16 followed by layers of stride 32, as Faster R-CNN needs")
    features, top = nn.HybridSequential(), nn.HybridSequential()
    features.add(*layers[:count])
    top.add(*layers[count:])
    _, channels, side, _ = _shapes(features, (1, 3, _ODD, _ODD))[1][0]
    if side != -(-_ODD // STRIDE):
        raise UsageError(f"{backbone} rounds the sides of its maps down; Faster R-CNN takes those that round up")
    for norm in (*_batch_norms(features), *_batch_norms(top)):
        norm._kwargs["use_global_stats"] = True
    return Layers(net, features, top, channels)


def _assemble(backbone: str, classes: Sequence[str], config: Config) -> tuple[Extractor, Head, Layers]:
    layers = cut(backbone)
    with _quiet():
        net = FasterRCNN(layers.features, layers.top, list(classes), **of_gluoncv(config))
        extractor, head = split(net, config, layers.channels, backbone)
        set_shapes(extractor, head)
    freeze(extractor, head, config.frozen)
    return extractor, head, layers


def _layers(net: HybridBlock) -> list[HybridBlock]:
    features = getattr(net, "features", net)  # ResNet v1b and its kin have their layers at the top
    return list(features._children.values())


def _strides(layers: Sequence[HybridBlock]) -> list[int]:
    """px of the image between the outputs of each layer."""
    x, outputs = mx.sym.var("data"), []
    for layer in layers:
        x = layer(x)
        outputs.append(x)
    with _quiet():
        shapes = mx.sym.Group(outputs).infer_shape(data=(1, 3, _EVEN, _EVEN))[1]
    return [round(_EVEN / shape[-1]) for shape in shapes]


def _shapes(block: HybridBlock, data: tuple[int, ...]) -> tuple[dict[str, tuple[int, ...]], list[tuple[int, ...]]]:
    """Shapes of the parameters, by name, and of the output of a block for an input of this shape."""
    graph = block(mx.sym.var("data"))
    with _quiet():
        arguments, outputs, states = graph.infer_shape(data=data)
    named = dict(zip(graph.list_arguments() + graph.list_auxiliary_states(), arguments + states))
    return named, outputs


def set_shapes(extractor: Extractor, head: Head) -> None:
    """Completes the shapes of all parameters, so that no initialisation waits for a first batch."""
    (channels,), side = extractor.channels, head.config.roi_size
    top, (seen,) = _shapes(head.top_features, (1, channels, side, side))
    known = {**_shapes(extractor.features, (1, 3, _EVEN, _EVEN))[0], **top}
    for block in (extractor.features, head.top_features):
        for name, parameter in block.collect_params().items():
            parameter.shape = known[name]
    head.rpn.conv1[0].weight.shape = (head.config.rpn_channels, channels, 3, 3)
    for layer in (head.rpn.score, head.rpn.loc):
        layer.weight.shape = (layer.weight.shape[0], head.config.rpn_channels, 1, 1)
    for predictor in (head.class_predictor, head.box_predictor):
        predictor.weight.shape = (predictor.weight.shape[0], seen[1])


def _load(layers: Layers, path: str | Path, what: str) -> None:
    """Sets the backbone's layers from a .params file of the backbone; its classifier may be absent."""
    arrays = weights.read(path, what)
    net = layers.backbone
    named = net._collect_params_with_prefix()
    arrays = weights.renamed(named, arrays)
    used = {id(p) for block in (layers.features, layers.top) for p in block.collect_params().values()}
    targets = {name: parameter for name, parameter in named.items() if id(parameter) in used}
    weights.assign(targets, {n: a for n, a in arrays.items() if n in targets or n not in named}, path, what)


def _batch_norms(block: Block) -> list[nn.BatchNorm]:
    found: list[nn.BatchNorm] = []
    block.apply(lambda inner: found.append(inner) if isinstance(inner, nn.BatchNorm) else None)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without MXNet's warning that GluonCV leaves the input's type open: float32 is assumed, and right."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cannot decide type")
        yield
