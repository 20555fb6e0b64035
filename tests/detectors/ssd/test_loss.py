"""The multibox loss against GluonCV's and against NumPy written from the SSD paper."""

import mxnet as mx
import numpy as np
import pytest
from gluoncv.loss import SSDMultiBoxLoss
from mxnet import autograd

from gan_kd.detectors.ssd.loss import MultiBoxLoss, positives_scale

BATCH, ANCHORS, CLASSES = 3, 40, 4


def example(seed=0, positives=(5, 0, 12)):
    rng = np.random.default_rng(seed)
    targets = np.zeros((BATCH, ANCHORS), "float32")
    for row, count in zip(targets, positives):
        row[rng.choice(ANCHORS, count, replace=False)] = rng.integers(1, CLASSES + 1, count)
    scores = rng.standard_normal((BATCH, ANCHORS, CLASSES + 1)).astype("float32")
    offsets, boxes = (2 * rng.standard_normal((2, BATCH, ANCHORS, 4))).astype("float32")
    return scores, offsets, targets, boxes


def from_the_paper(scores, offsets, targets, boxes):
    """SSD, equations 1 to 3, with three hard negatives for each positive of an image."""
    conf = loc = 0.0
    for score, offset, target, box in zip(scores.astype("float64"), offsets, targets.astype(int), boxes):
        entropy = np.log(np.exp(score).sum(axis=1)) - score[np.arange(ANCHORS), target]
        positive = target > 0
        negatives = np.sort(entropy[~positive])[::-1][: 3 * positive.sum()]
        conf += entropy[positive].sum() + negatives.sum()
        distance = np.abs(offset - box)[positive]
        loc += np.where(distance < 1, 0.5 * distance**2, distance - 0.5).sum()
    return conf / (targets > 0).sum(), loc / (targets > 0).sum()


def ours(example, rows=slice(None)):
    arrays = [mx.nd.array(array[rows]) for array in example]
    conf, loc = MultiBoxLoss()(*arrays, mx.nd.array([positives_scale(example[2])]))
    return conf.asscalar(), loc.asscalar()


def test_equals_the_equations():
    assert ours(example()) == pytest.approx(from_the_paper(*example()), rel=1e-5)


def test_equals_gluoncv_in_value_and_gradient():
    gradients, values = [], []
    for theirs in (True, False):
        arrays = [mx.nd.array(array) for array in example()]
        arrays[0].attach_grad()
        arrays[1].attach_grad()
        with autograd.record():
            if theirs:
                total = SSDMultiBoxLoss()(*arrays)[0][0].sum()
            else:
                total = mx.nd.add_n(*MultiBoxLoss()(*arrays, mx.nd.array([positives_scale(example()[2])])))
        total.backward()
        values.append(total.asscalar())
        gradients.append([array.grad.asnumpy() for array in arrays[:2]])
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    for a, b in zip(*gradients):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_shares_of_devices_add_up():
    whole = ours(example())
    parts = [ours(example(), rows) for rows in (slice(0, 2), slice(2, 3))]
    assert np.sum(parts, axis=0) == pytest.approx(whole, rel=1e-5)


def test_a_batch_without_objects_costs_nothing():
    assert ours(example(positives=(0, 0, 0))) == (0, 0)
