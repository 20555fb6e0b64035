"""Localization Distillation, its class distillation and imitation against the published program, and gradients."""

import numpy as np
import pytest
from mxnet import autograd, nd

from gan_kd.detectors.gfl import priors
from gan_kd.distill import localization_losses as losses
from gan_kd.distill import localization_regions as regions
from gan_kd.distill.regions import fine_grained_masks

EXACT, FILE, SINGLE = 1e-12, 1e-7, 1e-5


@pytest.mark.parametrize(("name", "temperature", "factor"), [("ld_loss", 10.0, 0.25 / 4), ("kd_loss", 2.0, 10 / 8)])
def test_divergence_is_the_published_loss(reference, name, temperature, factor):
    student, teacher, weight = (
        nd.array(reference[f"{name}/{part}"], dtype="float64") for part in ("student", "teacher", "weight")
    )
    student.attach_grad()
    with autograd.record():
        each = losses.divergence(student, teacher, temperature) * (temperature**2 / student.shape[1])
        total = nd.sum(each * weight) * factor
    total.backward()
    np.testing.assert_allclose(each.asnumpy(), reference[f"{name}/each"], rtol=1e-9)
    assert total.asscalar() == pytest.approx(float(reference[f"{name}/total"]), rel=EXACT)
    np.testing.assert_allclose(student.grad.asnumpy(), reference[f"{name}/grad"], atol=EXACT)


def test_edges_apart_are_no_joint_distribution(reference):
    student, teacher = (nd.array(reference[f"retina_kl/{who}"], dtype="float64") for who in ("student", "teacher"))
    edges = losses.edge_divergence(student, teacher, 10)
    np.testing.assert_allclose(edges.asnumpy(), reference["retina_kl/edge17_T10"].mean(axis=1), rtol=1e-9)
    joint = losses.divergence(student, teacher, 10) * (100 / 68)
    np.testing.assert_allclose(joint.asnumpy(), reference["retina_kl/joint68_T10"], rtol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", FILE), ("float32", SINGLE)])
def test_distillation_of_a_batch_is_the_published_one(reference, dtype, tolerance):
    objects = np.concatenate([reference[f"batch/two/assigned_gt{sample}"] for sample in range(2)])
    level = np.tile(np.repeat(np.arange(5), reference["batch/level_counts"]), 2)
    positive = np.flatnonzero(objects >= 0)
    scores = 1 / (1 + np.exp(-reference["batch/student_cls"].reshape(-1, 5)[positive] / 16))
    main = scores.max(axis=1) * 0.25
    region = np.concatenate([reference[f"batch/two/vlr_code{sample}"] for sample in range(2)])
    paper = np.concatenate([reference[f"batch/two/vlr_paper{sample}"] for sample in range(2)])
    shares = 1 / np.bincount(level[positive], minlength=5)[level[positive]]  # the mean over a level's positives

    def logits(who, kind):
        return nd.array(reference[f"batch/{who}_{kind}"].reshape(2 * 257, -1) / 16, dtype=dtype)

    for name, kind, rows, weights in (
        ("ld/loss_ld", "reg", positive, main),
        ("ld/loss_ld_vlr", "reg", np.flatnonzero(region), region[region > 0] * 0.25 / 4),
        ("ld_paper_region/loss_ld_vlr", "reg", np.flatnonzero(paper), paper[paper > 0] * 0.25 / 4),
        ("ld/loss_kd", "cls", positive, shares * 10 * 4 / 5),  # T 2, 5 classes
    ):
        student, teacher = logits("student", kind), logits("teacher", kind)
        student.attach_grad()
        with autograd.record():
            own, wanted = (nd.take(x, nd.array(rows)) for x in (student, teacher))
            each = losses.edge_divergence(own, wanted) if kind == "reg" else losses.divergence(own, wanted, 2)
            total = nd.sum(each * nd.array(weights, dtype=dtype))
        total.backward()
        assert total.asscalar() == pytest.approx(reference[f"batch/two/{name}"].sum(), rel=tolerance)
        gradient = f"batch/two/{name.replace('loss', 'grad_loss')}_{kind}"
        if gradient in reference:
            expected = np.zeros(student.shape)
            expected[reference[f"{gradient}_rows"]] = reference[gradient]
            np.testing.assert_allclose(student.grad.asnumpy(), expected, atol=tolerance * np.abs(expected).max())
    assert (reference["batch/two/ld/loss_kd_neg"] == 0).all()  # class distillation in the region is off there


@pytest.mark.parametrize(("published", "region"), [("loss_im", "fine_grained"), ("loss_im_fitnet", "inside")])
def test_imitation_of_maps_is_the_published_one(reference, published, region):
    made = priors.make(reference["batch/level_shapes"].tolist())
    masks, positive = [], []
    for sample in range(2):
        boxes = reference[f"batch/two/gt{sample}"]
        chosen = (
            regions.inside(made.centres, boxes)
            if region == "inside"
            else fine_grained_masks([made.boxes.reshape(-1, 1, 1, 4)], boxes)[0].ravel()
        )
        masks.append(chosen)
        positive.append(reference[f"batch/two/assigned_gt{sample}"] >= 0)
    start = 0
    for level, (rows, columns) in enumerate(reference["batch/level_shapes"].tolist()):
        end = start + rows * columns
        mask = np.stack(masks)[:, start:end]
        student, teacher = (
            nd.array(reference[f"batch/{who}_feature"][:, start:end] / 4, dtype="float64")
            .transpose((0, 2, 1))
            .reshape((2, 256, rows, columns))
            for who in ("student", "teacher")
        )
        cells = nd.array(mask, dtype="float64").reshape((2, 1, rows, columns))
        found = losses.map_difference(student, teacher, cells).asscalar() / max(mask.sum(), 1)
        if not np.stack(positive)[:, start:end].any():
            found = 0
        assert 2 * found == pytest.approx(reference[f"batch/two/ld/{published}"][level], rel=EXACT)
        start = end


def test_gradients_are_central_differences_and_leave_the_teacher():
    rng = np.random.default_rng(0)
    student, teacher = (nd.array(rng.standard_normal((3, 36)), dtype="float64") for _ in range(2))
    for function in (losses.edge_divergence, lambda own, other: losses.divergence(own, other, 2)):
        for x in (student, teacher):
            x.attach_grad()
        with autograd.record():
            total = nd.sum(function(student, teacher))
        total.backward()
        assert (teacher.grad.asnumpy() == 0).all()
        for place in ((0, 0), (1, 17), (2, 35)):
            ends = []
            for move in (1e-6, -1e-6):
                moved = student.asnumpy()
                moved[place] += move
                ends.append(nd.sum(function(nd.array(moved, dtype="float64"), teacher)).asscalar())
            assert student.grad[place].asscalar() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-9)


def test_bounded_regression_spares_a_student_that_is_better_by_the_margin():
    teacher = nd.array([0.5, 0.5, 0.5, 0.5])
    student = nd.array([0.7, 0.5, 0.45, 0.3])  # better by 0.05 is not enough, by 0.2 is
    student.attach_grad()
    with autograd.record():
        each = losses.bounded_regression(student, teacher, 0.1)
    each.backward()
    np.testing.assert_allclose(each.asnumpy(), [0.7, 0.5, 0.45, 0], rtol=1e-6)
    assert student.grad.asnumpy().tolist() == [1, 1, 1, 0]
