"""RPN targets are GluonCV's, and those of the definition where GluonCV's leave no anchor."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo.rcnn.rpn.anchor import RPNAnchorGenerator
from gluoncv.model_zoo.rcnn.rpn.rpn_target import RPNTargetGenerator

from gan_kd.detectors.faster_rcnn.targets import RPNTargets, cells_of, encode, overlaps

ALL = 10**9  # samples: none is left out, so nothing is drawn


def boxes_of(count, size, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, np.array([size[1], size[0]] * 2), (count, 4))
    corners[:, 2:] = np.maximum(corners[:, :2] + 8, corners[:, 2:])
    return corners.astype(np.float32)


def gluoncv(boxes, size, targets):
    anchors = targets.anchors(cells_of(size)).reshape(-1, 4)
    generator = RPNTargetGenerator(num_sample=targets.samples)
    labels, offsets, masks = generator(mx.nd.array(boxes), mx.nd.array(anchors), size[1], size[0])
    return [np.asarray(x.asnumpy() if isinstance(x, mx.nd.NDArray) else x) for x in (labels, offsets, masks)]


@pytest.mark.parametrize("scales", [(2, 4, 8, 16, 32), (1.5, 3)])
def test_anchors_are_gluoncvs(scales):
    theirs = RPNAnchorGenerator(16, 16, (0.5, 1, 2), scales, (20, 20))
    theirs.initialize()
    expected = theirs(mx.nd.zeros((1, 1, 7, 12))).asnumpy()
    np.testing.assert_array_equal(RPNTargets(scales).anchors((7, 12)).reshape(1, -1, 4), expected)


def test_anchors_are_the_published_ones(shared):
    with np.load(shared / "reference" / "fgfi.npz") as reference:
        for case in ("voc_one", "small_anchors", "edge"):
            scales, ratios, size, anchors = [
                reference[f"{case}/{name}"] for name in ("scales", "ratios", "size", "anchors")
            ]
            ours = RPNTargets(tuple(scales.tolist()), tuple(ratios.tolist())).anchors(tuple(size.tolist()))
            np.testing.assert_array_equal(ours.reshape(anchors.shape), anchors)


@pytest.mark.parametrize("seed", range(4))
def test_labels_and_offsets_are_gluoncvs(seed):
    size, targets = (330, 501), RPNTargets(scales=(1, 2, 4, 8), samples=ALL)
    boxes = boxes_of(6, size, seed)
    labels, offsets = targets(boxes, size, np.random.default_rng(0))
    expected, expected_offsets, masks = gluoncv(boxes, size, targets)
    assert labels.shape == (21, 32, 12) and offsets.shape == (21, 32, 12, 4)
    np.testing.assert_array_equal(labels.ravel(), expected)
    np.testing.assert_allclose(offsets.reshape(-1, 4), expected_offsets * masks, rtol=1e-5, atol=1e-6)
    assert {-1, 0, 1} == set(labels.ravel().tolist())


def test_a_sample_keeps_the_quota_and_follows_the_generator():
    size = (320, 480)
    boxes = boxes_of(8, size)
    full, _ = RPNTargets(scales=(2, 4), samples=ALL, positive_iou=0.5)(boxes, size, np.random.default_rng(0))
    targets = RPNTargets(scales=(2, 4), samples=40, positive_iou=0.5, positive_share=0.25)
    drawn = [targets(boxes, size, np.random.default_rng(seed))[0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    for labels in drawn:
        assert (labels == 1).sum() == min(10, (full == 1).sum()) and (labels >= 0).sum() == 40
        assert (full[labels >= 0] == labels[labels >= 0]).all()


def test_negatives_fill_up_where_positives_are_few():
    size = (160, 160)
    labels, _ = RPNTargets(scales=(2,), samples=64)(np.array([[30, 30, 70, 70]]), size, np.random.default_rng(0))
    assert 0 < (labels == 1).sum() < 32 and (labels >= 0).sum() == 64


def test_the_border_lets_anchors_in_that_leave_the_image():
    """At a short side of 96 px no anchor of 128 px lies inside: GluonCV then calls every anchor an object's."""
    size, boxes = (96, 128), np.array([[0, 0, 120, 95]], np.float32)
    rng = np.random.default_rng(0)
    scales = (8,)
    assert (RPNTargets(scales, samples=ALL)(boxes, size, rng)[0] == -1).all()
    assert (gluoncv(boxes, size, RPNTargets(scales, samples=ALL))[0] == 1).all()
    labels, offsets = RPNTargets(scales, border=np.inf, samples=ALL)(boxes, size, rng)
    anchors = RPNTargets(scales).anchors(cells_of(size))
    iou = overlaps(anchors.reshape(-1, 4), boxes)[:, 0].reshape(labels.shape)
    expected = np.where(iou < 0.3, 0, np.where((iou >= 0.7) | (iou + 1e-7 > iou.max()), 1, -1))
    np.testing.assert_array_equal(labels, expected)
    left, top, right, bottom = anchors[labels == 1].T
    assert ((left < 0) | (top < 0) | (right >= 128) | (bottom >= 96)).any()
    # The offsets lead from the anchor to the object.
    side = np.stack([right - left, bottom - top], axis=1)
    found = offsets[labels == 1]
    centre = np.stack([left, top], axis=1) + side / 2 + found[:, :2] * side
    np.testing.assert_allclose(centre, np.tile([60, 47.5], (len(found), 1)), rtol=1e-5)
    np.testing.assert_allclose(np.exp(found[:, 2:]) * side, np.tile([120, 95], (len(found), 1)), rtol=1e-5)


def test_some_px_of_border():
    size = (96, 96)
    for border in (0, 5.5, 24):
        targets = RPNTargets((4,), border=border, samples=ALL)
        labels, _ = targets(np.zeros((0, 4)), size, np.random.default_rng(0))
        left, top, right, bottom = np.moveaxis(targets.anchors((6, 6)), -1, 0)
        outside = np.maximum.reduce([-left, -top, right - 96 + 1e-3, bottom - 96 + 1e-3])
        np.testing.assert_array_equal(labels == 0, outside <= border)
        assert (labels == 0).any()


def test_an_image_without_objects_has_background_alone():
    labels, offsets = RPNTargets((1,), samples=ALL)(np.zeros((0, 4)), (64, 64), np.random.default_rng(0))
    assert (labels == 0).any() and not (labels == 1).any() and not offsets.any()


def test_encoding_is_undone_by_the_networks_decoder():
    boxes, anchors = boxes_of(9, (200, 300), 1), boxes_of(9, (200, 300), 2)
    offsets = mx.nd.array(encode(boxes, anchors))
    back = mx.nd.contrib.box_decode(offsets[None], mx.nd.array(anchors)[None], 1, 1, 1, 1, clip=-1, format="corner")
    np.testing.assert_allclose(back[0].asnumpy(), boxes, rtol=1e-4, atol=1e-3)
