"""Regions of imitation and localization distillation against the published program."""

import numpy as np
import pytest
from mxnet import nd

from gan_kd.detectors.gfl import priors
from gan_kd.detectors.gfl.loss import decode, integral
from gan_kd.distill import localization_regions as regions
from gan_kd.distill.general_instances import general_instances
from gan_kd.distill.regions import fine_grained_masks

CASES = ["plain", "border", "overlap", "empty", "tiny", "large"]


@pytest.fixture
def made():
    return priors.make(priors.shapes(192, 256))


@pytest.mark.parametrize("case", CASES)
def test_regions_are_the_published_ones(reference, made, case):
    boxes = reference[f"assign/{case}/gt"]
    thresholds = reference.get(f"assign/{case}/threshold", np.empty(0))
    found = regions.valuable(made.boxes, boxes, thresholds)
    np.testing.assert_allclose(found, reference[f"assign/{case}/vlr_code"], atol=1e-7)
    paper = regions.valuable(made.boxes, boxes, thresholds, overlap="union")
    np.testing.assert_allclose(paper, reference[f"assign/{case}/vlr_paper"], atol=1e-7)
    mask = regions.valuable(made.boxes, boxes, thresholds, overlap="union", weight="one")
    np.testing.assert_array_equal(mask, reference[f"assign/{case}/vlr_paper"] > 0)
    np.testing.assert_array_equal(regions.inside(made.centres, boxes), reference[f"assign/{case}/region_box"])
    fine = fine_grained_masks([made.boxes.reshape(-1, 1, 1, 4)], boxes)[0].ravel()
    np.testing.assert_array_equal(fine, reference[f"assign/{case}/region_finegrained"])


def test_the_regions_of_the_batch_are_the_published_ones(reference):
    made = priors.make(reference["batch/level_shapes"].tolist())
    for sample in range(2):
        given = made.boxes, reference[f"batch/two/gt{sample}"], reference[f"batch/two/threshold{sample}"]
        np.testing.assert_allclose(regions.valuable(*given), reference[f"batch/two/vlr_code{sample}"], atol=1e-7)
        found = regions.valuable(*given, overlap="union")
        np.testing.assert_allclose(found, reference[f"batch/two/vlr_paper{sample}"], atol=1e-7)


def test_a_smaller_gamma_widens_the_region(made):
    box, threshold = np.array([[40.0, 40.0, 120.0, 150.0]]), np.array([0.4])
    areas = [np.count_nonzero(regions.valuable(made.boxes, box, threshold, gamma)) for gamma in (1, 0.5, 0.25, 0)]
    assert areas[0] == 0
    assert areas == sorted(areas)


def general(reference, samples):
    """Priors chosen at every level, (samples,A_k) each, with the given samples as one image."""
    made = priors.make(reference["batch/level_shapes"].tolist())
    centres = nd.array(made.centres / made.strides[:, None], dtype="float64")
    classes, boxes = {}, {}
    for who in ("student", "teacher"):
        classes[who] = reference[f"batch/{who}_cls"][samples] / 16
        logits = reference[f"batch/{who}_reg"][samples] / 16
        boxes[who] = [decode(centres, integral(nd.array(x, dtype="float64"))).asnumpy() for x in logits]
    found = []
    for end, count in zip(np.cumsum(made.counts), made.counts):
        rows = {
            (who, name): nd.array(np.concatenate([x[end - count : end] for x in arrays[who]])[None], dtype="float64")
            for name, arrays in (("classes", classes), ("boxes", boxes))
            for who in arrays
        }
        chosen = general_instances(
            rows["teacher", "classes"],
            rows["student", "classes"],
            rows["teacher", "boxes"],
            rows["student", "boxes"],
        )
        found.append(chosen.asnumpy().reshape(len(samples), count))
    return found


def test_general_instances_are_the_published_ones(reference):
    """The published program takes a level of the whole batch as one image."""
    apart = reference["batch/student_feature"].astype(float) / 4 - reference["batch/teacher_feature"].astype(float) / 4
    squares, start = np.square(apart).mean(axis=2), 0
    expected = reference["batch/two/ld/loss_im_gibox"]
    for level, chosen in enumerate(general(reference, [0, 1])):
        count = chosen.shape[1]
        mean = squares[:, start : start + count][chosen > 0].mean()
        if expected[level]:  # 0 at a level without a positive prior
            assert 2 * mean == pytest.approx(expected[level], rel=1e-12)
        start += count
    assert np.count_nonzero(expected) >= 2


def test_images_do_not_suppress_each_others_instances(reference):
    for chosen in general(reference, [0]):
        assert 1 <= chosen.sum() <= 10
    made = priors.make([(4, 4), (1, 1), (1, 1), (1, 1), (1, 1)])
    rng = np.random.default_rng(0)
    logits = [nd.array(np.repeat(rng.standard_normal((1, 16, 3)), 2, axis=0)) for _ in range(2)]
    boxes = nd.array(np.repeat(made.boxes[None, :16], 2, axis=0))
    first, second = general_instances(*logits, boxes, boxes).asnumpy()
    np.testing.assert_array_equal(first, second)
