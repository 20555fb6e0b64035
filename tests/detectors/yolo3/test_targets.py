"""YOLOv3's targets against GluonCV's generator, and by hand."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from gan_kd.detectors.yolo3.anchors import anchor_count
from gan_kd.detectors.yolo3.loss import spread
from gan_kd.detectors.yolo3.targets import YOLO3Targets

SIZE = 96
NAMES = ("objectness", "centres", "scales", "weights", "classes")


def random_boxes(rng: np.random.Generator) -> np.ndarray:
    """Up to 12 boxes of all sizes in the image, some of whole pixels, which makes ties."""
    count = rng.integers(1, 13)
    centre = rng.uniform(0, SIZE, (count, 2))
    side = np.exp(rng.uniform(np.log(2), np.log(SIZE), (count, 2)))
    boxes = np.clip(np.hstack([centre - side / 2, centre + side / 2]), 0, SIZE)
    if rng.random() < 0.3:
        boxes = np.round(boxes)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], np.minimum(boxes[:, :2] + 1, SIZE))
        boxes[:, :2] = np.minimum(boxes[:, :2], boxes[:, 2:] - 1)
    return boxes.astype(np.float32)


@pytest.mark.parametrize("mixed", [False, True])
def test_equal_to_gluoncvs_on_500_images(network, gluoncv_targets, mixed):
    rng = np.random.default_rng(11 + mixed)
    net, targets = network(), YOLO3Targets(SIZE)
    images = [random_boxes(rng) for _ in range(500)]
    boxes, labels, ratios = np.full((500, 12, 4), -1, np.float32), np.zeros((500, 12)), np.zeros((500, 12), np.float32)
    rows = np.full((500, 12, 8), -1, np.float32)
    for image, drawn in enumerate(images):
        count = len(drawn)
        boxes[image, :count] = drawn
        labels[image, :count] = rng.integers(0, 3, count)
        ratios[image, :count] = rng.uniform(0.1, 1, count)
        written = targets(drawn, labels[image, :count], ratios[image, :count] if mixed else None)
        rows[image, : len(written)] = written
    expected = [y.asnumpy() for y in gluoncv_targets(net, SIZE, boxes, labels, ratios if mixed else None)]
    expected[4] = np.where(expected[0] > 0, expected[4], 0)  # it has -1 where there is no object
    found = spread(mx.nd.array(rows), anchor_count(SIZE), 3)
    for name, ours, theirs in zip(NAMES, found, expected):
        tolerance = {"rtol": 1e-6, "atol": 1e-6} if name == "scales" else {"rtol": 0}
        np.testing.assert_allclose(ours.asnumpy(), theirs, err_msg=name, **tolerance)
    assert (expected[0] > 0).sum() > 1000


def test_by_hand() -> None:
    """A 60 x 120 object is nearest to the anchor 59 x 119, the last of stride 16, which has 6 cells a side."""
    rows = YOLO3Targets(SIZE)(np.array([[10, -20, 70, 100]]), np.array([2]))  # cut off to 60 x 96
    place, anchors = (40 / 16, 48 / 16), 3 * 9
    number = anchors + 3 * (3 * 6 + 2) + 2
    expected = [number, place[0] - 2, place[1] - 3, np.log(60 / 59), np.log(96 / 119), 2 - 60 / 96, 1, 2]
    np.testing.assert_allclose(rows, [expected], rtol=1e-5)


def test_an_object_beyond_the_edge_takes_none_behind_it_along() -> None:
    """GluonCV's generator stops at the first negative coordinate."""
    inside = np.array([[30, 30, 60, 60], [2, 50, 90, 90]], np.float32)
    edge, away = np.array([[-3, -4, 20, 20]], np.float32), np.array([[-9, -9, -2, -2]], np.float32)
    targets = YOLO3Targets(SIZE)
    expected = targets(np.concatenate([np.maximum(edge, 0), inside]), np.array([0, 1, 2]))
    np.testing.assert_array_equal(targets(np.concatenate([edge, away, inside]), np.array([0, 0, 1, 2])), expected)
    assert len(expected) == 3


def test_the_later_of_two_objects_on_an_anchor_counts() -> None:
    boxes = np.array([[10, 10, 40, 40], [50, 50, 80, 80], [10, 10, 41, 41]], np.float32)
    rows = YOLO3Targets(SIZE)(boxes, np.array([0, 1, 2]), np.array([0.3, 0.3, 0.7]))
    np.testing.assert_array_equal(rows[:, 6:], np.array([[0.7, 2], [0.3, 1]], np.float32))


def test_no_object() -> None:
    assert YOLO3Targets(SIZE)(np.zeros((0, 4)), np.zeros(0)).shape == (0, 8)
    empty = spread(mx.nd.full((2, 3, 8), -1), anchor_count(SIZE), 3)
    assert [y.shape[2] for y in empty] == [1, 2, 2, 2, 3] and not any(y.asnumpy().any() for y in empty)


def test_a_centre_that_rounds_to_the_far_edge_stays_in_the_last_cell() -> None:
    edge = np.nextafter(np.float32(SIZE), np.float32(0))
    row = YOLO3Targets(SIZE)(np.array([[edge, edge, SIZE, SIZE]], np.float32), np.array([0]))
    assert row[0, 0] == 27 + 108 + 3 * 143
