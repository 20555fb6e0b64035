"""Counts worked by hand, and the figures that the field knows."""

import mxnet as mx
import pytest
from gluoncv.model_zoo import get_model
from mxnet.gluon import nn

from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.network import join, split
from gan_kd.gluon.macs import count


def test_convolutions_and_dense_layers_by_hand():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(8, 3, strides=2, padding=1, in_channels=3),  # 8x8 -> 4x4
        nn.BatchNorm(in_channels=8),
        nn.Conv2D(8, 3, padding=1, groups=8, in_channels=8, use_bias=False),
        nn.Dense(10, in_units=128),
    )
    parameters = (8 * 3 * 9 + 8) + (8 + 8) + 8 * 9 + (128 * 10 + 10)
    macs = 4 * 4 * 8 * 3 * 9 + 4 * 4 * 8 * 9 + 128 * 10
    assert count(net, (1, 3, 8, 8)) == (parameters, macs)
    assert count(net, (2, 3, 8, 8)) == (parameters, 2 * macs)


@pytest.mark.parametrize(
    "name, parameters, macs",
    [
        ("mobilenet1.0", 4_231_976, 569e6),  # the MobileNet paper: 4.2 million, 569 million
        ("resnet18_v1", 11_689_512, 1.82e9),  # He et al.: 1.8 billion
    ],
)
def test_known_networks(name, parameters, macs):
    counted = count(get_model(name, pretrained=False), (1, 3, 224, 224))
    assert counted[0] == pytest.approx(parameters, rel=1e-3)
    assert counted[1] == pytest.approx(macs, rel=5e-3)


def test_a_detector_counts_extractor_and_head_but_no_anchors():
    extractor, head = split(zoo.build("mobilenet0.25", 128, ["cat", "dog"]))
    parts = count(extractor, (1, 3, 128, 128))
    anchors_per_cell, cells = [4, 6, 6, 6, 4, 4], [64, 16, 4, 1, 1, 1]
    outputs = [a * (3 + 4) for a in anchors_per_cell]
    weights = sum(9 * c * o for c, o in zip(extractor.channels, outputs))
    macs = sum(9 * c * o * n for c, o, n in zip(extractor.channels, outputs, cells))
    expected = (parts[0] + weights + sum(outputs), parts[1] + macs)
    assert count(join(extractor, head), (1, 3, 128, 128)) == expected


def test_a_frozen_network_counts_the_same():
    extractor, head = split(zoo.build("mobilenet0.25", 128, ["cat", "dog"]))
    detector = join(extractor, head)
    before = count(detector, (1, 3, 128, 128))
    detector.collect_params().setattr("grad_req", "null")
    detector(mx.nd.zeros((1, 3, 128, 128)))
    assert count(detector, (1, 3, 128, 128)) == before
