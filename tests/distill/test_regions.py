"""Masks of fine-grained feature imitation against the numbers that the published programs gave, and by definition."""

from pathlib import Path

import numpy as np
import pytest

from gan_kd.distill import regions
from gan_kd.distill.regions import fine_grained_counts, fine_grained_masks, overlaps

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "fgfi.npz"
FASTER_RCNN = ("voc_one", "voc_two", "small_anchors", "edge", "stride32")
needs_reference = pytest.mark.skipif(not REFERENCE.is_file(), reason=f"no reference values at {REFERENCE}")


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


def by_cell(reference, case):
    """Anchors (h, w, a, 4) of a Faster R-CNN case."""
    return reference[f"{case}/anchors"].reshape(*reference[f"{case}/size"], -1, 4)


def objects(reference, case, counts="gt_count"):
    """Boxes (M, 4) of each image of a case."""
    given = reference[f"{case}/gt"]
    return [rows[:count, :4] for rows, count in zip(given, reference[f"{case}/{counts}"])]


@needs_reference
@pytest.mark.parametrize("case", FASTER_RCNN)
def test_faster_rcnn_counts_and_masks(reference, case):
    anchors = [by_cell(reference, case)]
    for image, boxes in enumerate(objects(reference, case)):
        counts = fine_grained_counts(anchors, boxes, inclusive=True)[0]
        np.testing.assert_array_equal(counts, reference[f"{case}/count"][image])
        for scope in ("union", "per_map"):  # the same thing where there is one map
            mask = fine_grained_masks(anchors, boxes, scope=scope, inclusive=True)[0]
            np.testing.assert_array_equal(mask, reference[f"{case}/mask"][image, 0])


@needs_reference
def test_inclusive_pixels_make_the_difference_that_they_made(reference):
    anchors, boxes = [by_cell(reference, "plus_one")], objects(reference, "plus_one")[0]
    with_one, without = (fine_grained_masks(anchors, boxes, inclusive=inclusive)[0] for inclusive in (True, False))
    np.testing.assert_array_equal(with_one, reference["plus_one/mask"][0, 0])
    np.testing.assert_array_equal(without, reference["plus_one/mask_without_one"][0, 0])
    assert np.count_nonzero(with_one != without) == 4


@needs_reference
@pytest.mark.parametrize("tenths", [0, 2, 5, 8, 10])
def test_threshold(reference, tenths):
    anchors = [by_cell(reference, "small_anchors")]
    for image, count in enumerate(reference["small_anchors/gt_count"]):
        boxes = reference["psi/gt"][image, :count, :4]
        mask = fine_grained_masks(anchors, boxes, tenths / 10, inclusive=True)[0]
        np.testing.assert_array_equal(mask, reference[f"psi/mask_{tenths:02d}"][image])


@needs_reference
def test_overlaps(reference):
    for image, boxes in enumerate(reference["iou/gt"]):
        real = (boxes != 0).any(axis=1)  # a box of zeros is padding there
        found = overlaps(reference["iou/anchors"], boxes[real], inclusive=True)
        np.testing.assert_allclose(found.T, reference["iou/frcnn"][image][:, real], atol=1e-7)


def published_yolo_overlaps(anchors, boxes, inclusive=False):
    """The IoU of xing-bing/yolov5-distilling with its fault: the width's one stands inside the maximum."""
    a, b = (np.asarray(part, np.float32).reshape(-1, 4) for part in (anchors, boxes))
    a, b = a[None], b[:, None]
    wide = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0] + 1)
    high = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + 1
    shared = np.maximum(wide, 0) * np.maximum(high, 0)
    areas = [(part[..., 2] - part[..., 0] + 1) * (part[..., 3] - part[..., 1] + 1) for part in (a, b)]
    return shared / (areas[0] + areas[1] - shared)


# Of each case and stride, (image, row, column) of the cells that the fault puts into a mask or keeps out of it.
CHANGED_BY_THE_FAULT = {
    ("yolo_a", 8): [(0, 2, 3), (0, 3, 5)],
    ("yolo_b", 16): [(1, 3, 0)],
}


@needs_reference
@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("case", ["yolo_a", "yolo_b"])
def test_yolo_masks_per_map(reference, case, stride, monkeypatch):
    height, width = reference[f"{case}/image"]
    y, x = np.mgrid[: height // stride, : width // stride] * stride + (stride - 1) / 2
    centres, sizes = np.stack([x, y], axis=-1)[:, :, None], reference[f"{case}/anchors"][(8, 16, 32).index(stride)]
    anchors = [np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)]
    boxes = []
    for image in range(2):
        centre, size = np.split(reference[f"{case}/targets"][reference[f"{case}/targets"][:, 0] == image, 2:], 2, 1)
        boxes.append(np.concatenate([centre - size / 2, centre + size / 2], axis=1) * [width, height, width, height])

    def counted():
        return np.stack([fine_grained_counts(anchors, one, scope="per_map", inclusive=True)[0] for one in boxes])

    right, published = counted() > 0, reference[f"{case}/count{stride}"]
    changed = list(map(tuple, np.argwhere(right != (published > 0)).tolist()))
    assert changed == CHANGED_BY_THE_FAULT.get((case, stride), [])
    monkeypatch.setattr(regions, "overlaps", published_yolo_overlaps)
    np.testing.assert_array_equal(counted(), published)
    if stride > 8:  # of stride 8 the maps were not kept
        teacher, student = (reference[f"{case}/{whose}{stride}"] for whose in ("teacher", "student"))
        mask = (published > 0)[:, None, :, :, None]
        loss = 0.01 * np.sum(mask * (student - teacher) ** 2, dtype=float) / (2 * mask.sum())
        assert loss == pytest.approx(reference[f"{case}/loss{stride}"], rel=1e-6)


@needs_reference
def test_yolo_overlaps_with_the_published_fault(reference):
    for image, boxes in enumerate(reference["iou/gt"]):
        real = (boxes != 0).any(axis=1)
        found = published_yolo_overlaps(reference["iou/anchors"], boxes[real]).T
        np.testing.assert_allclose(found, reference["iou/yolov5"][image][:, real], atol=1e-7)


def square_anchors(stride, cells, size):
    y, x = np.mgrid[:cells, :cells] * stride + stride / 2
    return np.stack([x - size / 2, y - size / 2, x + size / 2, y + size / 2], axis=-1)[:, :, None]


def test_an_object_counts_on_the_maps_that_fit_it():
    """Two maps, anchors of 8 and 32 px: with one threshold for both a large object leaves the fine map alone."""
    anchors = [square_anchors(8, 8, 8), square_anchors(32, 2, 32)]
    large, small = np.array([[0, 0, 32, 32]]), np.array([[8, 16, 16, 24]])
    fine, coarse = fine_grained_masks(anchors, large)
    assert not fine.any() and coarse.sum() == 1 and coarse[0, 0]
    fine, coarse = fine_grained_masks(anchors, large, scope="per_map")
    assert fine[:4, :4].all() and fine.sum() == 16 and coarse[0, 0]
    fine, coarse = fine_grained_masks(anchors, small)
    assert fine[2, 1] and fine.sum() == 1 and not coarse.any()
    both = fine_grained_masks(anchors, np.concatenate([large, small]))
    assert [mask.sum() for mask in both] == [1, 1]


def test_without_an_object_there_is_no_cell():
    anchors = [square_anchors(8, 8, 8), square_anchors(32, 2, 32)]
    far = np.array([[200.0, 200, 210, 210]])  # no anchor meets it
    for boxes in (np.empty((0, 4)), far):
        for scope in ("union", "per_map"):
            masks = fine_grained_masks(anchors, boxes, 0.0, scope)
            assert [mask.shape for mask in masks] == [(8, 8), (2, 2)]
            assert not any(mask.any() for mask in masks)
