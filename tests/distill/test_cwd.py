"""CWD against NumPy written from its equations 3 and 4, its gradient, and devices."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.distill.base import Seen
from gan_kd.distill.cwd import ChannelWise
from gan_kd.recipe import Cwd
from tests.rig import compared

SHAPES = [(3, 8, 6, 6), (3, 5, 2, 2), (3, 4, 1, 1)]


def maps(seed):
    rng = np.random.default_rng(seed)
    return [mx.nd.array(rng.standard_normal(shape)) for shape in SHAPES]


def by_definition(teacher, student, temperature):
    def softmax(m):
        e = np.exp(m.asnumpy().astype("float64").reshape(*m.shape[:2], -1) / temperature)
        return e / e.sum(axis=2, keepdims=True)

    found = []
    for t, s in zip(teacher, student):
        p, q = softmax(t), softmax(s)
        found.append(temperature**2 / t.shape[1] * (p * np.log(p / q)).sum() / len(t))
    return np.mean(found)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_loss_is_the_divergence_of_the_channels_distributions(temperature):
    teacher, student = maps(0), maps(1)
    method = ChannelWise(Cwd(weight=2.5, temperature=temperature), compared([], []))
    loss = method.losses(Seen(teacher, student), 3)["cwd"]
    assert loss.shape == (1,)
    assert loss.asscalar() == pytest.approx(2.5 * by_definition(teacher, student, temperature), rel=1e-4)
    parts = [
        method.losses(Seen([t[rows] for t in teacher], [s[rows] for s in student]), 3)["cwd"].asscalar()
        for rows in (slice(0, 2), slice(2, 3))
    ]
    assert sum(parts) == pytest.approx(loss.asscalar(), rel=1e-5)
    assert method.losses(Seen(teacher, teacher), 3)["cwd"].asscalar() == pytest.approx(0, abs=1e-6)


def test_gradient_passes_finite_differences():
    teacher, student = maps(0), maps(1)
    for m in student:
        m.attach_grad()
    with autograd.record():
        loss = ChannelWise(Cwd(), compared([], [])).losses(Seen(teacher, student), 3)["cwd"]
    loss.backward()
    rng = np.random.default_rng(2)
    for index, m in enumerate(student[:2]):  # over one cell there is nothing to tell apart
        direction = mx.nd.array(rng.standard_normal(m.shape))
        up, down = (
            by_definition(teacher, [m + sign * 1e-3 * direction if k == index else o for k, o in enumerate(student)], 1)
            for sign in (1, -1)
        )
        assert (m.grad * direction).sum().asscalar() == pytest.approx((up - down) / 2e-3, rel=1e-2, abs=1e-5)
    assert np.abs(student[2].grad.asnumpy()).max() < 1e-6
