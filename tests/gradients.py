"""Gradients against finite differences."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd


def check(block, inputs, dtype="float64", step=1e-6, rel=1e-4):
    """The gradients of a weighted sum of all outputs of a block, in train mode, equal central differences.

    At three random places of every parameter and every input.
    """
    rng = np.random.default_rng(0)
    block.cast(dtype)
    inputs = [mx.nd.array(x, dtype=dtype) for x in inputs]
    for x in inputs:
        x.attach_grad()
    with autograd.train_mode():
        weights = [mx.nd.array(rng.standard_normal(y.shape), dtype=dtype) for y in block(*inputs)]

    def loss():
        return mx.nd.add_n(*[(y * w).sum() for y, w in zip(block(*inputs), weights)])

    with autograd.record():
        total = loss()
    total.backward()
    learnt = [p for p in block.collect_params().values() if p.grad_req != "null"]
    arrays = [(x, x.grad.asnumpy()) for x in inputs] + [(p.data(), p.grad().asnumpy()) for p in learnt]
    for array, gradient in arrays:
        scale = np.abs(gradient).max()
        assert scale > 0
        for place in rng.choice(array.size, min(3, array.size), replace=False):
            index = np.unravel_index(place, array.shape)
            expected = difference(loss, array, index, step)
            assert gradient[index] == pytest.approx(expected, rel=rel, abs=rel * scale)


def difference(loss, array, index, step):
    """Central difference of loss() by one element of an NDArray, which is left as it was."""
    values = array.asnumpy()
    ends = []
    for move in (step, -step):
        moved = values.copy()
        moved[index] += move
        array[:] = mx.nd.array(moved, dtype=array.dtype)
        with autograd.train_mode():
            ends.append(float(loss().asscalar()))
    array[:] = mx.nd.array(values, dtype=array.dtype)
    return (ends[0] - ends[1]) / (2 * step)
