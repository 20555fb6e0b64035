"""A small GluonCV Faster R-CNN and images with objects, for the whole room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo.rcnn.faster_rcnn.faster_rcnn import FasterRCNN

from gan_kd.data.sizes import Bounded
from gan_kd.detectors.faster_rcnn import zoo
from gan_kd.detectors.faster_rcnn.network import Extractor, Head, split
from gan_kd.detectors.faster_rcnn.settings import of_gluoncv
from gan_kd.gluon.initial import initialise
from gan_kd.recipe.faster_rcnn import FasterRCNN as Config

CLASSES = ["cat", "cow", "dog"]
SMALL = Config(
    scales=[1, 2, 4],
    rpn_channels=32,
    min_size=4,
    train_proposals=60,
    test_proposals=40,
    samples=16,
    roi_size=4,
    frozen="statistics",
)
DETECTIONS = 30
SIZE = (80, 112)  # px
SIZES = Bounded(80, 133)
MOST = 5  # objects of an image, padded


class Whole(NamedTuple):
    """GluonCV's network and its parts, which share its parameters."""

    net: FasterRCNN
    extractor: Extractor
    head: Head


@pytest.fixture
def small() -> Callable[..., Whole]:
    """whole(config, images): on mobilenet0.25, GluonCV's for that many images a device."""

    def make(config: Config = SMALL, images: int = 1) -> Whole:
        mx.random.seed(1)
        layers = zoo.cut("mobilenet0.25")
        numbers: dict[str, Any] = {**of_gluoncv(config), "per_device_batch_size": images, "max_num_gt": MOST}
        net = FasterRCNN(layers.features, layers.top, CLASSES, **numbers)
        extractor, head = split(net, config, layers.channels, "mobilenet0.25")
        zoo.set_shapes(extractor, head)
        initialise(net.collect_params().values())
        for parameter in net.collect_params(".*(gamma|var|beta|mean)").values():
            parameter.set_data(parameter.data() + mx.nd.random.uniform(0, 0.2, parameter.shape))
        for parameter in net.collect_params(".*(dense|rpn).*weight").values():  # or all scores are nearly equal
            parameter.set_data(parameter.data() * 10)
        return Whole(net, extractor, head)

    return make


def truth_of(images: int, seed: int = 0) -> np.ndarray:
    """(images, MOST, 5): one to four objects of each, corners in px and class, padded with -1."""
    rng = np.random.default_rng(seed)
    truth = np.full((images, MOST, 5), -1, np.float32)
    for rows in truth:
        for row in rows[: rng.integers(1, MOST)]:
            corner = rng.uniform(0, 40, 2)
            row[:4] = np.concatenate([corner, corner + rng.uniform(15, 40, 2)])
            row[4] = rng.integers(len(CLASSES))
    return truth
