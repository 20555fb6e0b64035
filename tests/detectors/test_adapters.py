"""Adapters against NumPy; which maps are paired, and the sentence where they do not fit."""

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.detectors.adapters import Adapters, pair_maps, require_equal_sizes
from gan_kd.detectors.base import Level
from gan_kd.errors import UsageError


def network(channels, sizes, side=512):
    """Maps of these sides of an input."""
    levels = [Level("neck", *each) for each in zip(channels, (side / size for size in sizes), sizes)]
    return SimpleNamespace(levels=levels, to_head=list(range(len(levels))))


RESNET = network([1024, 2048, 512, 512, 256, 256], [32, 16, 8, 4, 2, 1])
VGG_512 = network([512, 1024, 512, 256, 256, 256, 256], [64, 32, 16, 8, 4, 2, 1])
VGG_300 = network([512, 1024, 512, 256, 256, 256], [38, 19, 10, 5, 3, 1])
MOBILENET_300 = network([512, 1024, 512, 512, 256, 256], [19, 10, 5, 3, 2, 1])
AT_128 = network([128, 256, 512, 512, 256, 256], [8, 4, 2, 1, 1, 1])


@pytest.mark.parametrize(
    "student, teacher, pairs",
    [
        (RESNET, RESNET, [(i, i) for i in range(6)]),
        (RESNET, VGG_512, [(i, i + 1) for i in range(6)]),
        (VGG_512, RESNET, [(i + 1, i) for i in range(6)]),
        (MOBILENET_300, VGG_300, [(0, 1), (1, 2), (2, 3), (3, 4), (5, 5)]),
        (AT_128, AT_128, [(i, i) for i in range(6)]),
        (network([8], [1]), AT_128, [(0, 3)]),
    ],
)
def test_maps_are_paired_by_size_and_in_order(student, teacher, pairs):
    assert pair_maps(student, teacher) == pairs


def test_maps_are_paired_within_their_places():
    """A pyramid's first level has the stride of a backbone's map."""
    levels = [Level("backbone", 64, 8), Level("backbone", 128, 16), Level("neck", 32, 8), Level("neck", 32, 16)]
    pyramid = SimpleNamespace(levels=levels, to_head=[2, 3])
    assert pair_maps(pyramid, pyramid) == [(2, 2), (3, 3)]
    assert pair_maps(pyramid, pyramid, ("backbone", "neck")) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert pair_maps(pyramid, network([512], [64]), ("backbone", "neck")) == [(2, 0)]
    with pytest.raises(UsageError, match="student 64 of stride 8, .*; teacher 512x64x64$"):
        pair_maps(pyramid, network([512], [64]), ("backbone",))


def test_nothing_to_pair_prints_both_shape_lists():
    with pytest.raises(UsageError, match="student 8x7x7, 16x3x3; teacher 4x6x6$"):
        pair_maps(network([8, 16], [7, 3]), network([4], [6]))


def test_the_teachers_head_wants_equal_sizes_and_no_equal_channels():
    require_equal_sizes(network([1, 2, 3, 4, 5, 6], [32, 16, 8, 4, 2, 1]), RESNET)
    with pytest.raises(UsageError, match="distill.head: own.: student 1024x32x32, .*; teacher 512x64x64, .*256x1x1$"):
        require_equal_sizes(RESNET, VGG_512)


@pytest.mark.parametrize("kind", ["linear", "relu"])
def test_adapters_equal_numpy(kind):
    mx.random.seed(1)
    adapters = Adapters([3, 5, 2], [4, 5, 6], kind)
    adapters.initialize()
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((2, c, s, s)).astype("float32") for c, s in zip([3, 5, 2], [4, 2, 1])]
    for conv in (adapters.maps[0], adapters.maps[2]):
        conv.bias.set_data(mx.nd.array(rng.standard_normal(conv.bias.shape)))
    outputs = [y.asnumpy() for y in adapters(*map(mx.nd.array, inputs))]
    for index in (0, 2):
        weight, bias = (p.data().asnumpy() for p in (adapters.maps[index].weight, adapters.maps[index].bias))
        expected = np.einsum("ncyx,fc->nfyx", inputs[index], weight[:, :, 0, 0]) + bias[:, None, None]
        expected = np.maximum(expected, 0) if kind == "relu" else expected
        np.testing.assert_allclose(outputs[index], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs[1], inputs[1])
    assert len(list(adapters.collect_params())) == 4


def test_where_channels_agree_there_is_nothing():
    same, other = Adapters([3, 5], [3, 5]), Adapters([3, 5], [3, 6])
    assert not same.needed and not list(same.collect_params())
    assert other.needed
    with pytest.raises(ValueError, match="2 student maps for 1 teacher maps"):
        Adapters([3, 5], [3])


def test_gradients_equal_finite_differences(check_gradients):
    adapters = Adapters([3, 5], [4, 5])
    adapters.initialize(mx.init.Xavier())
    rng = np.random.default_rng(0)
    check_gradients(adapters, [rng.standard_normal((2, 3, 4, 4)), rng.standard_normal((2, 5, 2, 2))])


def test_a_compiled_graph_passes_gradients_through_equal_channels():
    adapters = Adapters([3, 5], [4, 5])
    adapters.initialize()
    adapters.hybridize(static_alloc=True, static_shape=True)
    inputs = [mx.nd.ones((1, 3, 2, 2)), mx.nd.ones((1, 5, 2, 2))]
    for x in inputs:
        x.attach_grad()
    with autograd.record():
        adapted, same = adapters(*(x * 1 for x in inputs))
        loss = adapted.sum() + 3 * same.sum()
    loss.backward()
    np.testing.assert_array_equal(inputs[1].grad.asnumpy(), np.full((1, 5, 2, 2), 3))
