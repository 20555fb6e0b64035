"""Feature imitation against NumPy written from the definition in the module, and its gradient."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.distill.base import Seen
from gan_kd.distill.feature_imitation import FeatureImitation
from gan_kd.gluon.optim import Position
from gan_kd.recipe import FeatureImitation as Config
from tests.rig import compared

SHAPES = [(3, 8, 6, 6), (3, 5, 2, 2), (3, 4, 1, 1)]


def maps(seed):
    rng = np.random.default_rng(seed)
    return [mx.nd.array(rng.standard_normal(shape)) for shape in SHAPES]


def distiller(**config):
    return FeatureImitation(Config(**config), compared([shape[1] for shape in SHAPES], [shape[2] for shape in SHAPES]))


def test_loss_is_the_mean_over_maps_of_the_mean_square():
    teacher, student = maps(0), maps(1)
    expected = 2.5 * np.mean([((s - t) ** 2).mean().asscalar() for t, s in zip(teacher, student)])
    whole = distiller(weight=2.5).losses(Seen(teacher, student), batch_size=3)["feature_imitation"]
    assert whole.shape == (1,)
    assert whole.asscalar() == pytest.approx(expected, rel=1e-5)
    parts = [
        distiller(weight=2.5).losses(Seen([t[rows] for t in teacher], [s[rows] for s in student]), 3)[
            "feature_imitation"
        ]
        for rows in (slice(0, 2), slice(2, 3))
    ]
    assert sum(part.asscalar() for part in parts) == pytest.approx(expected, rel=1e-5)


def test_gradient_is_the_difference_of_the_maps():
    teacher, student = maps(0), maps(1)
    for m in student:
        m.attach_grad()
    with autograd.record():
        loss = distiller().losses(Seen(teacher, student), 3)["feature_imitation"]
    loss.backward()
    for t, s in zip(teacher, student):
        expected = 2 * (s - t) / (t.size * len(SHAPES))
        np.testing.assert_allclose(s.grad.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-9)


def test_standardised_channels_count_alike():
    """Against NumPy from the definition in distill/standard.py."""
    teacher, student = maps(0), maps(1)
    # A channel a hundred times as strong would be all of the plain loss.
    for m in (*teacher, *student):
        m[:, 0] *= 100
    method = distiller(input="standard")
    method.update([Seen(teacher, student)], 3, Position(0, 10, 1))
    expected = []
    for t, s in zip(teacher, student):
        t, s = t.asnumpy().astype("float64"), s.asnumpy().astype("float64")
        deviation = t.std(axis=(0, 2, 3), keepdims=True)
        scale = deviation + 0.05 * np.sqrt((deviation**2).mean())
        expected.append((((s - t) / scale) ** 2).mean())
    loss = method.losses(Seen(teacher, student), 3)["feature_imitation"].asscalar()
    assert loss == pytest.approx(np.mean(expected), rel=1e-3)
