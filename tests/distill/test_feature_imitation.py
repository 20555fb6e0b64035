"""Feature imitation against NumPy written from the definition in the module, and its gradient."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.distill.feature_imitation import FeatureImitation

SHAPES = [(3, 8, 6, 6), (3, 5, 2, 2), (3, 4, 1, 1)]


def maps(seed):
    rng = np.random.default_rng(seed)
    return [mx.nd.array(rng.standard_normal(shape)) for shape in SHAPES]


def test_loss_is_the_mean_over_maps_of_the_mean_square():
    teacher, student = maps(0), maps(1)
    expected = 2.5 * np.mean([((s - t) ** 2).mean().asscalar() for t, s in zip(teacher, student)])
    whole = FeatureImitation(2.5).losses(teacher, student, batch_size=3)["feature_imitation"]
    assert whole.shape == (1,)
    assert whole.asscalar() == pytest.approx(expected, rel=1e-5)
    parts = [
        FeatureImitation(2.5).losses([t[rows] for t in teacher], [s[rows] for s in student], 3)["feature_imitation"]
        for rows in (slice(0, 2), slice(2, 3))
    ]
    assert sum(part.asscalar() for part in parts) == pytest.approx(expected, rel=1e-5)


def test_gradient_is_the_difference_of_the_maps():
    teacher, student = maps(0), maps(1)
    for m in student:
        m.attach_grad()
    with autograd.record():
        loss = FeatureImitation(1.0).losses(teacher, student, 3)["feature_imitation"]
    loss.backward()
    for t, s in zip(teacher, student):
        expected = 2 * (s - t) / (t.size * len(SHAPES))
        np.testing.assert_allclose(s.grad.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-9)
