"""Cosine attention against NumPy written from the definition in the module, and its gradient."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.distill.base import Seen
from gan_kd.distill.cosine_attention import CosineAttention, attention, similarity
from gan_kd.recipe import CosineAttention as Config
from tests.rig import compared

SHAPES = [(3, 8, 6, 6), (3, 5, 2, 2), (3, 4, 1, 1)]


def maps(seed, requires_grad=False):
    rng = np.random.default_rng(seed)
    arrays = [mx.nd.array(rng.standard_normal(shape)) for shape in SHAPES]
    for array in arrays if requires_grad else []:
        array.attach_grad()
    return arrays


def distiller(weight=1.0):
    return CosineAttention(Config(weight), compared([], []))


def by_definition(teacher, student, weight):
    """mean over maps and samples of 1 - cos, attention = sum over channels of squares, flattened."""
    values = []
    for t, s in zip(teacher, student):
        a, b = ((x.asnumpy() ** 2).sum(axis=1).reshape(len(x), -1) for x in (t, s))
        cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        values.append((1 - cosines).mean())
    return weight * np.mean(values)


def test_attention_has_unit_length():
    lengths = np.linalg.norm(attention(maps(0)[0]).asnumpy(), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def test_similarity_of_maps_whose_channels_differ():
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((3, 8, 6, 6)), rng.standard_normal((3, 2, 6, 6))
    a, b = ((x**2).sum(axis=1).reshape(3, -1) for x in (one, other))
    expected = [u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in zip(a, b)]
    np.testing.assert_allclose(similarity(mx.nd.array(one), mx.nd.array(other)).asnumpy(), expected, rtol=1e-5)


def test_loss_equals_the_definition():
    teacher, student = maps(0), maps(1)
    loss = distiller(2.5).losses(Seen(teacher, student), batch_size=3)["cosine_attention"]
    assert loss.shape == (1,)
    assert loss.asscalar() == pytest.approx(by_definition(teacher, student, 2.5), rel=1e-5)


def test_loss_of_equal_maps_is_zero_whatever_their_scale():
    teacher = maps(0)
    loss = distiller().losses(Seen(teacher, [3 * m for m in teacher]), batch_size=3)["cosine_attention"]
    assert loss.asscalar() == pytest.approx(0, abs=1e-6)


def test_devices_add_up_to_the_batch_mean():
    teacher, student, method = maps(0), maps(1), distiller()
    whole = method.losses(Seen(teacher, student), 3)["cosine_attention"].asscalar()
    parts = [
        method.losses(Seen([t[rows] for t in teacher], [s[rows] for s in student]), 3)["cosine_attention"].asscalar()
        for rows in (slice(0, 2), slice(2, 3))
    ]
    assert sum(parts) == pytest.approx(whole, rel=1e-5)


def test_diagnosis_is_the_norm_of_the_losss_gradient():
    teacher, student = maps(0), maps(1, requires_grad=True)
    method = distiller(2.5)
    with autograd.record():
        loss = method.losses(Seen(teacher, student), 3)["cosine_attention"]
    loss.backward()
    expected = [np.linalg.norm(m.grad.asnumpy()) for m in student]
    devices = [[m[rows] for m in student] for rows in (slice(0, 2), slice(2, 3))]
    real = [[m[rows] for m in teacher] for rows in (slice(0, 2), slice(2, 3))]
    assert method.diagnose(list(map(Seen, real, devices)), 3) == {
        "gradient_cosine_attention": pytest.approx(expected, rel=1e-4)
    }
    assert expected[0] > 0


def test_gradient_passes_finite_differences():
    teacher, student = maps(0), maps(1, requires_grad=True)
    method = distiller()
    with autograd.record():
        loss = method.losses(Seen(teacher, student), 3)["cosine_attention"]
    loss.backward()
    rng = np.random.default_rng(2)
    for index, shape in enumerate(SHAPES[:2]):  # the cosine of 1x1 maps is always 1
        direction = rng.standard_normal(shape)
        sides = []
        for sign in (1, -1):
            moved = list(student)
            moved[index] = student[index] + mx.nd.array(sign * 1e-2 * direction)
            sides.append(by_definition(teacher, moved, 1.0))
        numeric = (sides[0] - sides[1]) / 2e-2
        assert (student[index].grad.asnumpy() * direction).sum() == pytest.approx(numeric, rel=2e-2)
