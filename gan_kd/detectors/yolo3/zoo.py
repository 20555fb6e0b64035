"""YOLOv3 by the name of its backbone, first weights, and GluonCV's trained detectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mxnet as mx
from gluoncv.data import COCODetection, VOCDetection
from gluoncv.model_zoo.mobilenet import get_mobilenet
from gluoncv.model_zoo.yolo.darknet import darknet53
from gluoncv.model_zoo.yolo.yolo3 import YOLOV3
from mxnet.gluon import HybridBlock

from gan_kd.detectors.store import weights_file
from gan_kd.detectors.yolo3.anchors import ANCHORS, STRIDES
from gan_kd.gluon import weights
from gan_kd.gluon.initial import initialise
from gan_kd.recipe.yolo3 import FILTERS

_CLASSES = {"voc": VOCDetection.CLASSES, "coco": COCODetection.CLASSES}
_EXAMPLE = 64  # px of an input whose maps tell the shapes


def build(
    backbone: str,
    classes: Sequence[str],
    filters: Sequence[int] | None = None,
    init: str = "random",
    objectness: float = 0.0,
) -> YOLOV3:
    """GluonCV's YOLOv3 on one of `FILTERS`' backbones, all parameters initialised on the CPU.

    filters: even channels of the fused maps of stride 32, 16, 8; None: `FILTERS`.
    init: 'random' (He; follows mx.random.seed), 'imagenet' (GluonCV's download), or the path of a .params file with the
    backbone's parameters as GluonCV names them; a classifier may be absent.
    objectness: first bias of every anchor's objectness: GluonCV's is 0, which is an object at half of them, -4.6 at a
    hundredth (the prior of focal loss, arXiv 1708.02002, section 4.1).
    Raises UsageError for a wrong file, RunError if a download fails.
    """
    net, classifier = _assemble(backbone, classes, filters)
    initialise(net.collect_params().values())
    if init != "random":
        _load(net, classifier, weights_file(backbone) if init == "imagenet" else init, f"the backbone {backbone}")
    for output in net.yolo_outputs:
        bias = output.prediction.bias
        values = bias.data().asnumpy().reshape(-1, 5 + len(net.classes))
        values[:, 4] = objectness
        bias.set_data(mx.nd.array(values.reshape(-1)))
    return net


def assemble(backbone: str, classes: Sequence[str], filters: Sequence[int] | None = None) -> YOLOV3:
    """GluonCV's network, all shapes set, no parameter initialised; arguments as of `build`."""
    return _assemble(backbone, classes, filters)[0]


def load_zoo_detector(backbone: str, data: str) -> YOLOV3:
    """A trained YOLOv3 of GluonCV's zoo on the CPU, downloaded at its first use.

    backbone: of `recipe.yolo3.TRAINED`; data: voc or coco. Raises RunError if the download fails.
    """
    name = f"yolo3_{backbone}_{data}"
    net = assemble(backbone, _CLASSES[data])
    initialise(net.collect_params().values())
    path = weights_file(name)
    weights.assign(net._collect_params_with_prefix(), weights.read(path, name), path, name)
    return net


def _assemble(backbone: str, classes: Sequence[str], filters: Sequence[int] | None) -> tuple[YOLOV3, HybridBlock]:
    """The network, and the classifier that its backbone's layers are of."""
    if backbone == "darknet53":
        classifier = darknet53(pretrained=False)
        ends = (15, 24, 29)
    else:
        classifier = get_mobilenet(float(backbone[len("mobilenet") :]), pretrained=False)
        ends = (33, 69, -2)
    stages = [classifier.features[start:end] for start, end in zip((0, *ends), ends)]
    anchors = ANCHORS.reshape(len(STRIDES), -1).tolist()
    net = YOLOV3(stages, list(filters or FILTERS[backbone]), anchors, list(STRIDES), classes=list(classes))
    graph = mx.sym.Group(net(mx.sym.var("data")))
    arguments, _, states = graph.infer_shape(data=(1, 3, _EXAMPLE, _EXAMPLE))
    shapes = dict(zip(graph.list_arguments() + graph.list_auxiliary_states(), arguments + states))
    for name, parameter in net.collect_params().items():
        parameter.shape = shapes[name]  # so that no initialisation waits for a first batch
    return net, classifier


def _load(net: YOLOV3, classifier: HybridBlock, path: str | Path, what: str) -> None:
    """Sets the backbone's part of a YOLOv3 from a .params file of the classifier, all that the network uses of it."""
    arrays = weights.read(path, what)
    named = classifier._collect_params_with_prefix()
    arrays = weights.renamed(named, arrays)
    used = {id(parameter) for parameter in net.stages.collect_params().values()}
    targets = {name: parameter for name, parameter in named.items() if id(parameter) in used}
    weights.assign(targets, {n: a for n, a in arrays.items() if n in targets or n not in named}, path, what)
