"""SSD targets against GluonCV's generator, and by hand."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo.ssd.target import SSDTargetGenerator

from gan_kd.detectors.ssd.targets import SSDTargets

SIZE = 300


def anchors() -> np.ndarray:
    """(A, 4) centre form: grids of 19, 10, 5, 3 and 1 cells with three shapes a cell."""
    rows = []
    for cells, side in ((19, 30), (10, 60), (5, 111), (3, 162), (1, 264)):
        centre = (np.arange(cells) + 0.5) * SIZE / cells
        for y in centre:
            for x in centre:
                rows += [(x, y, side * stretch, side / stretch) for stretch in (1, 2**0.5, 0.5**0.5)]
    return np.array(rows, np.float32)


def random_boxes(rng: np.random.Generator) -> np.ndarray:
    """Up to 30 boxes of all sizes in the image."""
    count = rng.integers(1, 31)
    centre = rng.uniform(0, SIZE, (count, 2))
    side = np.exp(rng.uniform(np.log(4), np.log(SIZE), (count, 2)))
    boxes = np.clip(np.hstack([centre - side / 2, centre + side / 2]), 0, SIZE)
    return boxes.astype(np.float32)


@pytest.mark.parametrize("kind", ["real", "whole", "doubled"])
def test_equal_to_gluoncv(kind: str) -> None:
    """Whole pixels and doubled boxes make ties, which MXNet's sort and argmax decide in their own ways."""
    rng = np.random.default_rng(7)
    generator = SSDTargetGenerator(negative_mining_ratio=-1)
    places = anchors()
    targets = SSDTargets(places)
    for _ in range(40):
        boxes = random_boxes(rng)
        if kind != "real":
            boxes = np.round(boxes)
        if kind == "doubled":
            boxes = np.repeat(boxes, 2, axis=0)
        labels = rng.integers(0, 20, len(boxes))
        expected_classes, expected_offsets, _ = generator(
            mx.nd.array(places[None]), None, mx.nd.array(boxes[None]), mx.nd.array(labels[None, :, None])
        )
        classes, offsets = targets(boxes, labels)
        np.testing.assert_array_equal(classes, expected_classes[0].asnumpy())
        np.testing.assert_allclose(offsets, expected_offsets[0].asnumpy(), rtol=1e-5, atol=1e-5)


def test_offsets_by_hand() -> None:
    classes, offsets = SSDTargets(np.array([[50, 40, 20, 10]]))(np.array([[41, 35, 63, 47]]), np.array([3]))
    np.testing.assert_array_equal(classes, [4])
    expected = [2 / 20 / 0.1, 1 / 10 / 0.1, np.log(22 / 20) / 0.2, np.log(12 / 10) / 0.2]
    np.testing.assert_allclose(offsets, [expected], rtol=1e-5)
    assert classes.dtype == offsets.dtype == np.float32


def test_every_object_takes_its_best_anchor_if_that_is_free() -> None:
    places = np.array([[5, 5, 10, 10], [25, 5, 10, 10], [45, 5, 10, 10], [65, 5, 10, 10]])
    # The second's best anchor is taken and no other overlaps it; the third has an IoU of 0.04 with its best.
    boxes = np.array([[0, 0, 10, 10], [1, 0, 14, 10], [40, 0, 42, 2]])
    classes, _ = SSDTargets(places)(boxes, np.arange(3))
    np.testing.assert_array_equal(classes, [1, 0, 3, 0])


def test_a_second_anchor_needs_half_overlap() -> None:
    places = np.array([[5, 5, 10, 10], [5, 2.5, 10, 5], [5, 9, 10, 10]])
    box = np.array([[0, 0, 10, 10]])  # IoU 1, 1/2 and 6/14 with the three
    for iou_thresh, expected in ((0.4, [1, 1, 1]), (0.5, [1, 1, 0]), (0.6, [1, 0, 0])):
        np.testing.assert_array_equal(SSDTargets(places, iou_thresh)(box, np.zeros(1))[0], expected)


@pytest.mark.parametrize("boxes", [np.zeros((0, 4)), [[9, 9, 9, 9]], [[400, 400, 410, 410]]])
def test_without_an_object_in_reach_all_is_background(boxes: np.ndarray) -> None:
    """GluonCV instead gives an object without area to every anchor that is free, with infinite offsets."""
    classes, offsets = SSDTargets(anchors())(np.asarray(boxes), np.zeros(len(boxes)))
    assert classes.shape == (len(anchors()),) and offsets.shape == (len(anchors()), 4)
    assert not classes.any() and not offsets.any()
