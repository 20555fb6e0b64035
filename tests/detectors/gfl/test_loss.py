"""GFL's losses and their gradients against the published program; batches without objects."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd

from gan_kd.detectors.gfl import loss, priors
from gan_kd.detectors.gfl.targets import assign

# Of float64 values, and of gradients relative to the largest: of the file's float32, of computed float64 and float32.
EXACT, FILE, SINGLE = 1e-12, 1e-7, 1e-5


@pytest.fixture
def array(reference):
    return lambda name: nd.array(reference[name], dtype="float64")


def test_quality_focal_loss(reference, array):
    quality = np.zeros((14, 5))
    for row, (label, score) in enumerate(zip(reference["qfl/label"], reference["qfl/score"])):
        if label < 5:  # else background
            quality[row, label] = score
    logits = array("qfl/logit")
    logits.attach_grad()
    with autograd.record():
        each = loss.quality_focal(logits, nd.array(quality, dtype="float64"))
        total = nd.sum(each * array("qfl/weight")) / 7
    total.backward()
    np.testing.assert_allclose(each.asnumpy(), reference["qfl/each"], rtol=EXACT)
    assert total.asscalar() == pytest.approx(float(reference["qfl/total_avg7"]), rel=EXACT)
    np.testing.assert_allclose(logits.grad.asnumpy(), reference["qfl/grad"], atol=EXACT)


def test_distribution_focal_loss(reference, array):
    logits = array("dfl/logit")
    logits.attach_grad()
    with autograd.record():
        each = loss.distribution_focal(logits, array("dfl/target"))
        total = nd.sum(each) * (loss.DFL / 4)
    total.backward()
    np.testing.assert_allclose(each.asnumpy(), reference["dfl/each"], rtol=EXACT)
    assert total.asscalar() == pytest.approx(float(reference["dfl/total_avg4"]), rel=EXACT)
    np.testing.assert_allclose(logits.grad.asnumpy(), reference["dfl/grad"], atol=EXACT)


def test_giou_loss_of_disjoint_nested_flat_and_equal_boxes(reference, array):
    boxes = array("giou/pred")
    boxes.attach_grad()
    with autograd.record():
        iou, giou = loss.overlaps(boxes, array("giou/target"))
        total = nd.sum((1 - giou) * array("giou/weight")) * loss.GIOU
    total.backward()
    np.testing.assert_allclose(iou.asnumpy(), reference["giou/iou"], rtol=EXACT)
    np.testing.assert_allclose(1 - giou.asnumpy(), reference["giou/each"], rtol=EXACT)
    assert total.asscalar() == pytest.approx(float(reference["giou/total_w2"]), rel=EXACT)
    np.testing.assert_allclose(boxes.grad.asnumpy(), reference["giou/grad"], atol=EXACT)


def test_distances_and_boxes(reference, array):
    distances = loss.integral(array("integral/logit"))
    np.testing.assert_allclose(distances.asnumpy(), reference["integral/distance"], rtol=EXACT)
    point, box = reference["distance/point"], reference["distance/box"]
    np.testing.assert_allclose(loss.encode(point, box, 16), reference["distance/encoded_max16"], rtol=FILE)
    unclamped = np.concatenate([point - box[:, :2], box[:, 2:] - point], axis=1)
    decoded = loss.decode(array("distance/point"), nd.array(unclamped, dtype="float64"))
    np.testing.assert_allclose(decoded.asnumpy(), reference["distance/decoded"], rtol=EXACT)


def batch(reference, case, samples=(0, 1)):
    """Priors, objects (n,A) and truth (n,M,5) of a case."""
    made = priors.make(reference["batch/level_shapes"].tolist())
    truth, objects = np.full((len(samples), 3, 5), -1.0), np.empty((len(samples), len(made.centres)), int)
    for row, sample in enumerate(samples):
        boxes = reference[f"batch/{case}/gt{sample}"]
        truth[row, : len(boxes), :4] = boxes
        truth[row, : len(boxes), 4] = reference[f"batch/{case}/gt_label{sample}"]
        objects[row] = assign(made, boxes).objects
    return made, objects, truth


def losses_of(reference, case, dtype="float64", devices=((0, 1),)):
    """Losses of a case, the samples on some devices, and each one's gradients at class and box logits."""
    inputs, found, objects = [], [], []
    for samples in devices:
        made, matched, truth = batch(reference, case, samples)
        logits = [
            nd.array(reference[f"batch/student_{kind}"][list(samples)] / 16, dtype=dtype) for kind in ("cls", "reg")
        ]
        inputs.append(logits)
        objects.append(matched)
        found.append(loss.positives(made, matched, truth, 16, mx.cpu(), dtype))
    count = sum(map(loss.counted, objects))
    results = {}
    for name in ("qfl", "giou", "dfl"):
        for logits in inputs:
            for x in logits:
                x.attach_grad()
        with autograd.record():
            sums = [loss.sums(*logits, positives) for logits, positives in zip(inputs, found)]
            weight = nd.maximum(nd.add_n(*[part.weight for part in sums]), 1e-6)
            total = nd.add_n(*[loss.weighted(part, count, weight)[name] for part in sums])
        total.backward()
        grads = [np.concatenate([logits[kind].grad.asnumpy() for logits in inputs]) for kind in (0, 1)]
        results[name] = total.asscalar(), grads
    return results


def dense(reference, name, width):
    """A gradient (2,257,width) of the file, which may hold the rows that are not 0."""
    if f"{name}_rows" not in reference:
        return reference[name]
    rows = np.zeros((2 * 257, width))
    rows[reference[f"{name}_rows"]] = reference[name]
    return rows.reshape(2, 257, width)


PUBLISHED = {"qfl": ("loss_cls", 0, "cls", 5), "giou": ("loss_bbox", 1, "reg", 68), "dfl": ("loss_dfl", 1, "reg", 68)}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", FILE), ("float32", SINGLE)])
@pytest.mark.parametrize("source", ["two/gfl", "two/ld", "oneempty/gfl"])
def test_losses_of_a_batch_and_their_gradients(reference, source, dtype, tolerance):
    found = losses_of(reference, source.split("/")[0], dtype)
    for name, (published, kind, logits, width) in PUBLISHED.items():
        value, gradients = found[name]
        assert value == pytest.approx(reference[f"batch/{source}/{published}"].sum(), rel=tolerance)
        expected = dense(reference, f"batch/{source}/grad_{published}_{logits}", width)
        np.testing.assert_allclose(gradients[kind], expected, atol=tolerance * np.abs(expected).max())


def test_positives_have_the_published_quality_and_weight(reference):
    made, objects, truth = batch(reference, "two")
    found = loss.positives(made, objects, truth, 16, mx.cpu(), "float64")
    classes, boxes = (nd.array(reference[f"batch/student_{kind}"] / 16, dtype="float64") for kind in ("cls", "reg"))
    distances = loss.integral(nd.take(boxes.reshape((-1, 68)), found.rows))
    quality = loss.overlaps(loss.decode(found.centres, distances), found.boxes)[0].asnumpy()
    weight = loss.weights(classes, found.rows).asnumpy()
    for name, values in (("iou", quality), ("weight", weight)):
        expected = np.concatenate([reference[f"batch/two/positive_{name}{sample}"] for sample in range(2)])
        np.testing.assert_allclose(values, expected, rtol=1e-9)


def test_a_batch_without_an_object_trains_its_classes_alone(reference):
    found = losses_of(reference, "allempty")
    assert found["qfl"][0] == pytest.approx(reference["batch/allempty/gfl/loss_cls"].sum(), rel=EXACT)
    assert np.abs(found["qfl"][1][0]).max() > 0
    for name in ("giou", "dfl"):
        value, gradients = found[name]
        assert value == 0
        assert all((gradient == 0).all() for gradient in gradients)


def test_cells_of_the_padding_have_no_loss(reference):
    classes = nd.array(reference["batch/student_cls"] / 16, dtype="float64")
    boxes = nd.array(reference["batch/student_reg"] / 16, dtype="float64")
    used = np.ones((2, 257))
    used[1, 100:] = 0
    classes.attach_grad()
    with autograd.record():
        part = loss.sums(classes, boxes, None, nd.array(used, dtype="float64"))
    part.quality.backward()
    assert ((classes.grad.asnumpy() != 0).any(axis=2) == used).all()


@pytest.mark.parametrize("case", ["two", "oneempty"])
def test_devices_add_up_to_the_batch(reference, case):
    together, apart = losses_of(reference, case), losses_of(reference, case, devices=((0,), (1,)))
    for name, (value, gradients) in together.items():
        assert apart[name][0] == pytest.approx(value, rel=EXACT)
        for one, other in zip(gradients, apart[name][1]):
            np.testing.assert_allclose(one, other, atol=EXACT)


def test_gradients_of_all_losses_are_central_differences(reference):
    """The weights of box losses and the quality are constants: they do not move with the logits."""
    rng = np.random.default_rng(0)
    logits = nd.array(rng.standard_normal((7, 9)), dtype="float64")
    wanted = nd.array(rng.uniform(0, 7.9, 7), dtype="float64")
    quality = nd.array(rng.uniform(0, 1, (7, 9)), dtype="float64")
    targets = nd.array([[-2.0, -1.5, 3.0, 2.0]] * 7, dtype="float64")
    centres = nd.zeros((7, 2), dtype="float64")
    boxes = nd.array(rng.standard_normal((7, 36)), dtype="float64")

    def giou(x):
        return loss.overlaps(loss.decode(centres, loss.integral(x)), targets)[1]

    for function, start in (
        (lambda x: loss.quality_focal(x, quality), logits),
        (lambda x: loss.distribution_focal(x, wanted), logits),
        (giou, boxes),
    ):
        start.attach_grad()
        with autograd.record():
            total = nd.sum(function(start))
        total.backward()
        for place in ((0, 0), (3, 4), (6, 8)):
            ends = []
            for move in (1e-6, -1e-6):
                moved = start.asnumpy()
                moved[place] += move
                ends.append(nd.sum(function(nd.array(moved, dtype="float64"))).asscalar())
            assert start.grad[place].asscalar() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-8)
