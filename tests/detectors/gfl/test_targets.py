"""ATSS against the published program; the objects that it must survive."""

import numpy as np
import pytest

from gan_kd.detectors.gfl import priors
from gan_kd.detectors.gfl.targets import assign
from gan_kd.errors import UsageError

CASES = ["plain", "border", "overlap", "empty", "tiny", "large"]


@pytest.fixture
def made():
    return priors.make(priors.shapes(192, 256))


def test_priors_are_the_published_ones(reference, made):
    assert priors.shapes(192, 256) == list(map(tuple, reference["assign/level_shapes"].tolist()))
    np.testing.assert_array_equal(made.boxes, reference["assign/anchors"])
    batch = priors.make(reference["batch/level_shapes"].tolist())
    np.testing.assert_array_equal(batch.boxes, reference["batch/anchors"])
    assert list(batch.counts) == reference["batch/level_counts"].tolist()


@pytest.mark.parametrize("case", CASES)
def test_assignment_is_the_published_one(reference, made, case):
    boxes = reference[f"assign/{case}/gt"]
    found = assign(made, boxes)
    np.testing.assert_array_equal(found.objects, reference[f"assign/{case}/assigned_gt"])
    expected = reference.get(f"assign/{case}/threshold", np.empty(0))
    np.testing.assert_allclose(found.thresholds, expected, atol=1e-12)


def test_the_batch_is_assigned_as_published(reference):
    made = priors.make(reference["batch/level_shapes"].tolist())
    for sample in range(2):
        found = assign(made, reference[f"batch/two/gt{sample}"])
        np.testing.assert_array_equal(found.objects, reference[f"batch/two/assigned_gt{sample}"])
        np.testing.assert_allclose(found.thresholds, reference[f"batch/two/threshold{sample}"], atol=1e-12)


def test_of_equally_near_priors_the_first_are_candidates():
    made = priors.make([(6, 6), (1, 1), (1, 1), (1, 1), (1, 1)])
    box = np.array([[0.0, 0.0, 40.0, 40.0]])  # centre (20, 20) px, amid four cells of P3
    distances = np.square(made.centres[:36] - 20).sum(axis=1)
    nearest = np.lexsort((np.arange(36), distances))[:9]
    shared = np.clip(np.minimum(made.boxes[:, 2:], 40) - np.maximum(made.boxes[:, :2], 0), 0, None).prod(axis=1)
    overlap = shared / (np.square(made.strides * 8) + 1600 - shared)
    candidates = np.concatenate([overlap[nearest], overlap[36:]])
    assert assign(made, box).thresholds[0] == pytest.approx(candidates.mean() + candidates.std(ddof=1))


def test_cells_beyond_the_image_are_no_candidates(made):
    box = np.array([[20.0, 20.0, 120.0, 150.0]])
    valid = made.inside(96, 128)
    assert valid.sum() < len(valid)
    smaller = priors.make(priors.shapes(96, 128))
    found, alone = assign(made, box, valid), assign(smaller, box)
    np.testing.assert_array_equal(found.objects[valid], alone.objects)
    assert (found.objects[~valid] == -1).all()
    assert found.thresholds == alone.thresholds


def test_six_hundred_objects_are_assigned(made):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 150, (600, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 60, (600, 2))], axis=1)
    found = assign(made, boxes)
    positive = found.objects >= 0
    assert positive.any()
    centres, matched = made.centres[positive], boxes[found.objects[positive]]
    assert (centres > matched[:, :2]).all()
    assert (centres < matched[:, 2:]).all()


def test_a_box_without_area_is_refused(made):
    with pytest.raises(UsageError, match=r"the box 5, 5, 5, 9 \(x1, y1, x2, y2 in px\) has no area"):
        assign(made, np.array([[1.0, 1.0, 9.0, 9.0], [5.0, 5.0, 5.0, 9.0]]))
