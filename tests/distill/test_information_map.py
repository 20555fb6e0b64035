"""The information map against NumPy, and its gradient."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd

from gan_kd.detectors.yolo3.network import Predictions
from gan_kd.distill.base import Compared, Seen
from gan_kd.distill.information_map import InformationMap, ObjectnessMap, information, relative_error
from gan_kd.recipe import InformationMap as Config


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def expected_map(t, weighting, power):
    """From the definition, cell by cell."""
    n, _, h, w = t.shape
    found = np.empty((n, h * w))
    for image in range(n):
        for cell in range(h * w):
            values = t[image, :, cell // w, cell % w].astype(float)
            magnitude = np.exp(np.abs(values).mean() / 0.5)
            found[image, cell] = {"energy": (values**2).mean() ** power, "softmax": magnitude, "none": 1}[weighting]
    return found / found.mean(axis=1, keepdims=True)


@pytest.mark.parametrize(
    "weighting, power", [("energy", 1.0), ("energy", 0.5), ("energy", 0.0), ("softmax", 1.0), ("none", 1.0)]
)
def test_maps_from_their_definition(weighting, power):
    t = drawn(2, 5, 3, 4)
    found = information(nd.array(t), weighting, power).asnumpy()
    np.testing.assert_allclose(found, expected_map(t, weighting, power), rtol=1e-5)
    np.testing.assert_allclose(found.mean(axis=1), 1, rtol=1e-6)


def test_power_zero_is_plain_imitation():
    t = nd.array(drawn(2, 5, 3, 4))
    np.testing.assert_allclose(information(t, "energy", 0.0).asnumpy(), information(t, "none").asnumpy(), rtol=1e-6)


def test_relative_error_from_its_definition():
    t, s = drawn(2, 5, 3, 4), drawn(2, 5, 3, 4, seed=1)
    w = expected_map(t, "energy", 1.0)
    d = ((s - t).astype(float) ** 2).mean(axis=1).reshape(2, -1)
    e = (t.astype(float) ** 2).mean(axis=1).reshape(2, -1)
    found = relative_error(nd.array(t), nd.array(s), nd.array(w)).asnumpy()
    np.testing.assert_allclose(found, (w * d).mean(axis=1) / e.mean(axis=1), rtol=1e-5)


def test_scale_of_the_maps_does_not_count():
    t, s = nd.array(drawn(2, 5, 3, 4)), nd.array(drawn(2, 5, 3, 4, seed=1))
    weights = information(t, "energy")
    small = relative_error(t * 0.01, s * 0.01, information(t * 0.01, "energy")).asnumpy()
    np.testing.assert_allclose(small, relative_error(t, s, weights).asnumpy(), rtol=1e-4)


def test_maps_of_zeros_are_finite():
    zeros = nd.zeros((1, 3, 2, 2))
    for weighting in ("energy", "softmax", "none"):
        weights = information(zeros, weighting)
        np.testing.assert_allclose(weights.asnumpy(), 1)
        assert relative_error(zeros, zeros, weights).asscalar() == 0


def test_gradient_at_the_student():
    t, s = drawn(1, 3, 2, 2), drawn(1, 3, 2, 2, seed=1)
    x = nd.array(s)
    x.attach_grad()
    w = information(nd.array(t), "energy")
    with autograd.record():
        loss = relative_error(nd.array(t), x, w)
    loss.backward()
    weights = w.asnumpy().reshape(1, 1, 2, 2)
    np.testing.assert_allclose(x.grad.asnumpy(), weights * 2 * (s - t) / t.size / np.mean(t**2), rtol=1e-4)
    assert mx.nd.norm(x.grad).asscalar() > 0


@pytest.mark.parametrize("weighting", ["energy", "softmax", "none"])
def test_loss_is_a_share_of_the_mean_over_maps_and_samples(weighting):
    maps = [(drawn(3, 4, 2, 2), drawn(3, 4, 2, 2, seed=1)), (drawn(3, 2, 1, 3, seed=2), drawn(3, 2, 1, 3, seed=3))]
    errors = []
    for t, s in maps:
        w = expected_map(t, weighting, 1.0)
        d = ((s - t).astype(float) ** 2).mean(axis=1).reshape(3, -1)
        errors.append((w * d).mean(axis=1) / (t.astype(float) ** 2).mean(axis=(1, 2, 3)))
    distiller = InformationMap(Config(weight=3.0, weighting=weighting), Compared([], ()))
    seen = Seen([nd.array(t) for t, _ in maps], [nd.array(s) for _, s in maps])
    found = distiller.losses(seen, 12)["information_map"]
    assert found.shape == (1,)
    np.testing.assert_allclose(found.asscalar(), 3.0 * np.mean(errors) * 3 / 12, rtol=1e-5)


def test_objectness_is_what_the_head_is_surest_of_in_a_cell():
    """Inputs of 64 px: maps of 2, 4 and 8 cells a side, three anchors in each cell, the coarsest map first."""
    n, sides, classes = 2, (2, 4, 8), 3
    objectness, probabilities = (drawn(n, 3 * 84, width, seed=width) for width in (1, classes))
    others = [nd.zeros((n, 3 * 84, width)) for width in (4, 2, 2)]
    outputs = Predictions(others[0], nd.array(objectness), *others[1:], nd.array(probabilities))
    maps = [drawn(n, 5, side, side, seed=side) for side in sides]
    students = [drawn(n, 5, side, side, seed=side + 1) for side in sides]
    expected, first = [], 0
    for t, s, side in zip(maps, students, sides):
        certain = np.empty((n, side * side))
        for image in range(n):
            for cell in range(side * side):
                rows = slice(first + 3 * cell, first + 3 * cell + 3)
                p, q = (1 / (1 + np.exp(-x[image, rows].astype(float))) for x in (objectness, probabilities))
                certain[image, cell] = (p * q).max()
        w = certain / certain.mean(axis=1, keepdims=True)
        d = ((s - t).astype(float) ** 2).mean(axis=1).reshape(n, -1)
        expected.append((w * d).mean(axis=1) / (t.astype(float) ** 2).mean(axis=(1, 2, 3)))
        first += 3 * side * side
    order = (2, 0, 1)  # maps come in the order of the extractor
    seen = Seen([nd.array(maps[k]) for k in order], [nd.array(students[k]) for k in order], (outputs, outputs))
    found = ObjectnessMap(Config(weighting="objectness"), Compared([], ())).losses(seen, n)["information_map"]
    np.testing.assert_allclose(found.asscalar(), np.mean(expected), rtol=1e-5)
