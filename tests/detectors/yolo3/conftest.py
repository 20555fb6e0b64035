"""GluonCV's whole network with its own targets, which the parts are held against."""

from __future__ import annotations

import mxnet as mx
import pytest
from gluoncv.model_zoo.yolo.yolo_target import YOLOV3PrefetchTargetGenerator
from mxnet import autograd

from gan_kd.detectors.yolo3.zoo import assemble
from gan_kd.gluon.initial import initialise

CLASSES = ["cat", "cow", "dog"]


@pytest.fixture
def network():
    """network(backbone, filters) -> YOLOV3 with first weights and BatchNorm statistics unlike the identity."""

    def build(backbone="mobilenet0.25", filters=(32, 16, 8)):
        mx.random.seed(3)
        net = assemble(backbone, CLASSES, filters)
        initialise(net.collect_params().values())
        for parameter in net.collect_params(".*(gamma|var|beta|mean)").values():
            parameter.set_data(parameter.data() + mx.nd.random.uniform(0, 0.2, parameter.shape))
        return net

    return build


@pytest.fixture
def gluoncv_targets():
    """gluoncv_targets(net, size, boxes (n, M, 4), labels (n, M), ratios (n, M) or None) -> its five arrays.

    Boxes are padded with -1.
    """

    def targets(net, size, boxes, labels, ratios=None):
        image = mx.nd.zeros((1, 3, size, size))
        with autograd.train_mode():
            _, anchors, offsets, maps, *_ = net(image)
        generator = YOLOV3PrefetchTargetGenerator(len(net.classes))
        shares = None if ratios is None else mx.nd.array(ratios[:, :, None])
        return generator(image, maps, anchors, offsets, mx.nd.array(boxes), mx.nd.array(labels[:, :, None]), shares)

    return targets
