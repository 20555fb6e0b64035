"""GroupNorm against its equation, on arrays and compiled; its gradients by differences."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd

from gan_kd.detectors.gfl.layers import GroupNorm, Scale


def drawn(dtype="float32", offset=3.0):
    rng = np.random.default_rng(0)
    norm = GroupNorm(6, 3)
    norm.initialize()
    norm.cast(dtype)
    norm.gamma.set_data(nd.array(rng.uniform(0.5, 2, (6, 1, 1, 1)), dtype=dtype))
    norm.beta.set_data(nd.array(rng.standard_normal(6), dtype=dtype))
    return norm, nd.array(rng.standard_normal((2, 6, 5, 4)) + offset, dtype=dtype)


def equation(x, gamma, beta):
    groups = x.reshape(2, 3, -1)
    mean, variance = groups.mean(axis=2, keepdims=True), groups.var(axis=2, keepdims=True)
    normalised = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    return normalised * gamma.reshape(1, -1, 1, 1) + beta.reshape(1, -1, 1, 1)


@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_group_norm_follows_its_equation_in_every_mode(hybridized, training):
    norm, x = drawn()
    if hybridized:
        norm.hybridize()
    with autograd.record(train_mode=training):
        found = norm(x)
    expected = equation(x.asnumpy(), norm.gamma.data().asnumpy(), norm.beta.data().asnumpy())
    np.testing.assert_allclose(found.asnumpy(), expected, atol=1e-5)


def test_gradients_are_central_differences():
    norm, x = drawn("float64")
    weight = nd.array(np.random.default_rng(1).standard_normal(x.shape), dtype="float64")
    x.attach_grad()
    with autograd.record():
        total = nd.sum(norm(x) * weight)
    total.backward()
    gamma, beta = norm.gamma.data(), norm.beta.data()
    for array, gradient in ((x, x.grad), (gamma, norm.gamma.grad()), (beta, norm.beta.grad())):
        values, gradient = array.asnumpy(), gradient.asnumpy().ravel()
        for place in range(0, array.size, 1 + array.size // 7):
            ends = []
            for move in (1e-6, -1e-6):
                moved = values.copy()
                moved.ravel()[place] += move
                array[:] = nd.array(moved, dtype="float64")
                ends.append(nd.sum(norm(x) * weight).asscalar())
            array[:] = nd.array(values, dtype="float64")
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-6)


def test_both_routes_have_equal_gradients():
    found = []
    for hybridized in (False, True):
        norm, x = drawn()
        if hybridized:
            norm.hybridize()
        x.attach_grad()
        with autograd.record():
            total = nd.sum(norm(x) ** 3)
        total.backward()
        found.append([g.asnumpy() for g in (x.grad, norm.gamma.grad(), norm.beta.grad())])
    for eager, compiled in zip(*found):
        np.testing.assert_allclose(eager, compiled, rtol=1e-3, atol=1e-3)


def test_scale_multiplies_by_one_at_first():
    scale = Scale()
    scale.initialize()
    x = mx.nd.arange(4).reshape((1, 1, 2, 2))
    assert (scale(x) == x).asnumpy().all()
    scale.scale.set_data(nd.array([3]))
    assert (scale(x) == 3 * x).asnumpy().all()
