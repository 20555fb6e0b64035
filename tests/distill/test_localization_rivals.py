"""The rivals of Localization Distillation: imitation of maps in regions, and teacher bounded regression."""

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd

from gan_kd.detectors.gfl import loss, priors
from gan_kd.detectors.gfl.network import Outputs
from gan_kd.distill.base import Compared, Seen
from gan_kd.distill.bounded_regression import BoundedRegression
from gan_kd.distill.region_imitation import RegionImitation
from gan_kd.recipe import BoundedRegression as Bounded
from gan_kd.recipe import RegionImitation as Region


def seen_of(reference, samples=(0, 1), weight=1.0):
    """What a device with these samples of the published batch sees; weight: of the positives of the whole batch."""
    chosen, shapes = list(samples), reference["batch/level_shapes"].tolist()
    made, maps, outputs = priors.make(shapes), {}, []
    for who in ("teacher", "student"):
        rows = nd.array(reference[f"batch/{who}_feature"][chosen] / 4, dtype="float64")
        ends = np.cumsum(made.counts).tolist()
        maps[who] = [
            rows[:, end - h * w : end].transpose((0, 2, 1)).reshape((len(chosen), 256, h, w))
            for end, (h, w) in zip(ends, shapes)
        ]
        logits = (nd.array(reference[f"batch/{who}_{kind}"][chosen] / 16, dtype="float64") for kind in ("cls", "reg"))
        outputs.append(Outputs(*logits))
    truth = np.full((len(chosen), 3, 5), -1.0)
    for row, sample in enumerate(chosen):
        boxes = reference[f"batch/two/gt{sample}"]
        truth[row, : len(boxes)] = np.column_stack([boxes, reference[f"batch/two/gt_label{sample}"]])
    objects = np.stack([reference[f"batch/two/assigned_gt{sample}"] for sample in chosen])
    positives = loss.positives(made, objects, truth, 16, mx.cpu(), "float64")
    share = loss.Share(made, objects, truth, np.empty(0), positives, None, 1)
    assigned = {"share": share, "weight": nd.array([weight], dtype="float64")}
    return Seen(**maps, outputs=tuple(outputs), assigned=assigned)


def imitation(region, parts):
    (shares,) = RegionImitation(Region(2.0, region), Compared([], (mx.cpu(),))).shares(parts, 2).values()
    return sum(share.asscalar() for share in shares)


@pytest.mark.parametrize(("region", "published"), [("fine_grained", "loss_im"), ("inside", "loss_im_fitnet")])
def test_imitation_is_the_published_one(reference, region, published):
    expected = reference[f"batch/two/ld/{published}"].sum()
    assert imitation(region, [seen_of(reference)]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("region", ["whole", "main"])
def test_imitation_is_a_mean_over_the_cells_of_a_level(reference, region):
    apart = np.square((reference["batch/student_feature"].astype(float) - reference["batch/teacher_feature"]) / 4)
    objects = np.stack([reference[f"batch/two/assigned_gt{sample}"] for sample in range(2)])
    expected, start = 0.0, 0
    for count in reference["batch/level_counts"]:
        positive, cells = objects[:, start : start + count] >= 0, apart[:, start : start + count].mean(axis=2)
        if positive.any():
            expected += cells[positive].mean() if region == "main" else cells.mean()
        start += count
    assert imitation(region, [seen_of(reference)]) == pytest.approx(2 * expected, rel=1e-12)


@pytest.mark.parametrize("region", ["whole", "inside", "main", "fine_grained", "general"])
def test_two_devices_imitate_as_one(reference, region):
    one = imitation(region, [seen_of(reference)])
    assert one > 0
    two = imitation(region, [seen_of(reference, (0,)), seen_of(reference, (1,))])
    assert two == pytest.approx(one, rel=1e-12)


@pytest.mark.parametrize("region", ["whole", "main"])
def test_the_diagnosis_says_which_share_of_a_level_is_imitated(reference, region):
    distiller = RegionImitation(Region(2.0, region), Compared([], (mx.cpu(),)))
    found = distiller.diagnose([seen_of(reference, (0,)), seen_of(reference, (1,))], 2)
    objects = np.stack([reference[f"batch/two/assigned_gt{sample}"] for sample in range(2)])
    ends = np.cumsum(reference["batch/level_counts"])
    shares = [(level >= 0).mean() for level in np.split(objects, ends[:-1], axis=1)]
    assert found["region_cells"] == pytest.approx(shares if region == "main" else [1.0] * 5)
    assert len(found["gradient_region_imitation"]) == 5


def regression(margin, part):
    return BoundedRegression(Bounded(1.0, margin), Compared([], (mx.cpu(),))).losses(part, 2)["bounded_regression"]


def test_a_wide_margin_gives_the_detectors_own_loss(reference):
    weight = sum(reference[f"batch/two/positive_weight{sample}"].sum() for sample in range(2))
    part = seen_of(reference, weight=weight)
    expected = reference["batch/two/gfl/loss_bbox"].sum()
    assert regression(10.0, part).asscalar() == pytest.approx(expected, rel=1e-7)
    assert 0 < regression(0.0, part).asscalar() < expected


def test_only_boxes_that_are_not_better_than_the_teachers_have_a_gradient(reference):
    part = seen_of(reference)
    teacher, student = part.outputs
    student.boxes.attach_grad()
    with autograd.record():
        total = regression(0.0, part)
    total.backward()
    found = part.assigned["share"].positives
    giou = [
        loss.overlaps(loss.decode(found.centres, loss.integral(nd.take(x.reshape((-1, 68)), found.rows))), found.boxes)[
            1
        ]
        for x in (teacher.boxes, student.boxes)
    ]
    worse = (giou[1] < giou[0]).asnumpy() > 0
    assert 0 < worse.sum() < len(worse)
    reached = (student.boxes.grad.asnumpy().reshape(-1, 68) != 0).any(axis=1)
    assert set(np.flatnonzero(reached)) == set(found.rows.asnumpy()[worse])


def test_without_a_positive_prior_there_is_nothing_to_regress(reference):
    part = seen_of(reference)
    part.assigned["share"] = part.assigned["share"]._replace(positives=None)
    assert regression(0.1, part).asscalar() == 0


@pytest.mark.parametrize("margin", [0.0, 0.4, 100.0])
def test_ssds_offsets_are_bounded_as_the_equation_says(margin):
    """Equation 6 with SSD's own loss: smooth L1 of four offsets over the positive anchors, divided by their number."""
    rng = np.random.default_rng(0)
    teacher, student, wanted = rng.normal(0, 1.5, (3, 2, 30, 4))
    positive = rng.random((2, 30)) < 0.4
    each = [
        np.where(np.abs(apart) < 1, apart**2 / 2, np.abs(apart) - 0.5).sum(axis=2)
        for apart in (student - wanted, teacher - wanted)
    ]
    counted = positive & (each[0] + margin > each[1])
    arrays = [nd.array(array, dtype="float64") for array in (teacher, student, wanted, positive)]
    outputs = tuple(SimpleNamespace(boxes=array) for array in arrays[:2])
    scale = nd.array([1 / positive.sum()], dtype="float64")
    part = SimpleNamespace(outputs=outputs, assigned={"classes": arrays[3], "offsets": arrays[2], "scale": scale})
    arrays[1].attach_grad()
    with autograd.record():
        found = regression(margin, part)
    found.backward()
    assert found.asscalar() == pytest.approx(each[0][counted].sum() / positive.sum(), rel=1e-12)
    np.testing.assert_array_equal((arrays[1].grad.asnumpy() != 0).any(axis=2), counted)
    assert counted.sum() == positive.sum() if margin == 100 else counted.sum() < positive.sum()
