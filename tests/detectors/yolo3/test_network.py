"""The parts are the whole network of GluonCV to the last bit, and their files are its files."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo import get_model
from mxnet import autograd

from gan_kd.data.sizes import Square
from gan_kd.detectors.base import Parts
from gan_kd.detectors.yolo3.anchors import anchor_boxes, anchor_count
from gan_kd.detectors.yolo3.loss import YOLO3Loss, spread
from gan_kd.detectors.yolo3.network import (
    Predictions,
    YOLO3Candidates,
    join,
    split,
)
from gan_kd.detectors.yolo3.targets import YOLO3Targets
from gan_kd.detectors.yolo3.zoo import FILTERS, assemble
from gan_kd.gluon import weights
from gan_kd.gluon.initial import initialise

CLASSES = ["cat", "cow", "dog"]
SIZE = 64
BOXES = np.array([[[3, 4, 30, 50], [20, 10, 61, 33]], [[0, 0, 64, 64], [-1, -1, -1, -1]]], np.float32)
LABELS = np.array([[0, 2], [1, -1]], np.float32)


def gradients(net):
    return {name: p.grad().asnumpy() for name, p in net._collect_params_with_prefix().items() if p.grad_req != "null"}


@pytest.mark.parametrize("backbone, hybrid", [("mobilenet0.25", False), ("mobilenet0.25", True), ("darknet53", False)])
def test_losses_and_gradients_are_those_of_the_whole(network, gluoncv_targets, backbone, hybrid):
    net = network(backbone)
    x = mx.nd.random.normal(shape=(2, 3, SIZE, SIZE))
    theirs = gluoncv_targets(net, SIZE, BOXES, LABELS)
    statistics = {name: p.data().copy() for name, p in net.collect_params(".*running.*").items()}
    if hybrid:
        net.hybridize(static_alloc=True)
    with autograd.record():
        whole = net(x, mx.nd.array(BOXES), *theirs)
        mx.nd.add_n(*whole).mean().backward()  # a share: divided by the images of the batch
    expected = gradients(net)
    net.hybridize(False)

    for name, values in statistics.items():
        net.collect_params()[name].set_data(values)
    extractor, head = split(net)
    loss = YOLO3Loss(3)
    for block in (extractor, head, loss) if hybrid else ():
        block.hybridize(static_alloc=True)
    rows = np.full((2, 2, 8), -1, np.float32)
    targets = YOLO3Targets(SIZE)
    rows[0] = targets(BOXES[0], LABELS[0])
    rows[1, :1] = targets(BOXES[1, :1], LABELS[1, :1])
    ours = spread(mx.nd.array(rows), anchor_count(SIZE), 3)
    with autograd.record():
        found = Predictions(*head(*extractor(x)[3:]))
        parts = loss(*found, mx.nd.array(BOXES), mx.nd.array([0.5]), *ours)
        mx.nd.add_n(*parts).backward()
    for part, losses in zip(parts, whole):
        assert part.shape == (1,) and part.asscalar() > 0
        np.testing.assert_array_equal(part.asnumpy(), losses.mean().asnumpy())
    for name, gradient in gradients(net).items():
        # Compiled, a sum of two gradients is rounded elsewhere where a map leaves the graph.
        atol = 1e-4 * np.abs(expected[name]).max() if hybrid else 0
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=atol, err_msg=name)
    assert any(name.startswith("stages.0") and np.abs(gradient).max() > 0 for name, gradient in expected.items())


def test_predictions_are_gluoncvs_detections_before_suppression(network):
    net = network()
    net.set_nms(nms_thresh=0)
    x = mx.nd.random.normal(shape=(2, 3, SIZE, SIZE))
    ids, expected, corners = (y.asnumpy() for y in net(x))
    extractor, head = split(net)
    scores, boxes = (y.asnumpy() for y in YOLO3Candidates(SIZE)(*head(*extractor(x)[3:])))
    first = 0
    for cells in (4, 16, 64):  # GluonCV's order: map, class, anchor
        rows = slice(3 * first, 3 * (first + 3 * cells))
        here = slice(first, first + 3 * cells)
        np.testing.assert_array_equal(scores[:, here].transpose(0, 2, 1).reshape(2, -1), expected[:, rows, 0])
        np.testing.assert_array_equal(np.tile(boxes[:, here], (1, 3, 1)), corners[:, rows])
        np.testing.assert_array_equal(np.repeat(np.arange(3), 3 * cells), ids[0, rows, 0])
        first += 3 * cells
    assert first == anchor_count(SIZE) and scores.max() > 0.3


@pytest.mark.parametrize("topk", [400, 30])
def test_detections_are_gluoncvs(network, topk):
    net = network()
    net.set_nms(0.45, topk, 20)
    x = mx.nd.random.normal(shape=(2, 3, SIZE, SIZE))
    expected = [y.asnumpy() for y in net(x)]
    detector = join(Parts(*split(net, SIZE), Square(SIZE)), nms_topk=topk, post_nms=20)
    detector.hybridize(static_alloc=True)
    for found, theirs in zip(detector(x), expected):
        np.testing.assert_array_equal(found.asnumpy(), theirs)
    assert (expected[1] > 0.01).sum() >= 20


def test_parts_serve_training_and_detection_in_turn(network):
    extractor, head = split(network())
    x = mx.nd.random.normal(shape=(1, 3, SIZE, SIZE))
    eager = head(*extractor(x)[3:])
    extractor.hybridize()
    head.hybridize()
    for size in (SIZE, 96, SIZE):  # a new size between two batches, too
        with autograd.record():
            trained = Predictions(*head(*extractor(mx.nd.ones((1, 3, size, size)))[3:]))
        assert trained.classes.shape == (1, anchor_count(size), 3)
    for found, expected in zip(head(*extractor(x)[3:]), eager):
        assert found.shape == expected.shape


@pytest.mark.parametrize(
    "backbone, backbone_channels, fused_channels",
    [
        ("darknet53", [256, 512, 1024], [128, 256, 512]),
        ("mobilenet1.0", [256, 512, 1024], [128, 256, 512]),
        ("mobilenet0.25", [64, 128, 256], [128, 128, 256]),
    ],
)
def test_maps(backbone, backbone_channels, fused_channels):
    extractor, _ = split(assemble(backbone, CLASSES))
    assert extractor.channels == backbone_channels + fused_channels
    assert [level.stride for level in extractor.levels] == [8, 16, 32] * 2
    assert [level.place for level in extractor.levels] == ["backbone"] * 3 + ["neck"] * 3


@pytest.mark.parametrize("backbone", ["mobilenet0.25", "mobilenet1.0"])
def test_files_go_both_ways(backbone, tmp_path):
    def zoo_network():
        return get_model(f"yolo3_{backbone}_custom", classes=CLASSES, pretrained_base=False)

    mx.random.seed(5)
    ours = assemble(backbone, CLASSES)
    initialise(ours.collect_params().values())
    file = tmp_path / "ours.params"
    weights.write(join(Parts(*split(ours, SIZE), Square(SIZE))).weights(), file)
    theirs = zoo_network()
    theirs.load_parameters(str(file))
    x = mx.nd.random.normal(shape=(1, 3, SIZE, SIZE))
    for found, expected in zip(theirs(x), ours(x)):
        np.testing.assert_array_equal(found.asnumpy(), expected.asnumpy())

    theirs = zoo_network()
    theirs.initialize()
    theirs(x)
    theirs.save_parameters(str(file))
    weights.assign(
        join(Parts(*split(ours, SIZE), Square(SIZE))).weights(), weights.read(file, "a test"), file, "a test"
    )
    for found, expected in zip(theirs(x), ours(x)):
        np.testing.assert_array_equal(found.asnumpy(), expected.asnumpy())


@pytest.mark.parametrize("backbone", ["mobilenet0.5", "mobilenet0.75"])
def test_widths_beside_the_zoos(backbone):
    extractor, head = split(assemble(backbone, CLASSES))
    assert extractor.channels[3:] == list(reversed(FILTERS[backbone]))
    assert head.yolo_outputs[0].prediction.weight.shape == (24, 2 * FILTERS[backbone][0], 1, 1)


def test_anchors_are_the_boxes_of_zero_logits(network):
    net = network()
    extractor, head = split(net)
    for parameter in head.yolo_outputs.collect_params(".*(weight|bias)").values():
        parameter.set_data(parameter.data() * 0)
    found = Predictions(*head(*extractor(mx.nd.zeros((1, 3, SIZE, SIZE)))[3:]))
    anchors = [anchor_boxes(stride, SIZE // stride, SIZE // stride).reshape(-1, 4) for stride in (32, 16, 8)]
    np.testing.assert_array_equal(found.boxes[0].asnumpy(), np.concatenate(anchors))
