"""D-Net against paper.md: blocks by map size, a NumPy forward pass, gradients, first weights."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn

from gan_kd.distill.discriminator import NORMS, Discriminator, DNet, PatchCritic, RealAndFake


def made(*args, **kwargs):
    mx.random.seed(5)
    net = Discriminator(*args, **kwargs)
    net.initialize()
    return net


def blocks(net, channels, size):
    """(kernel, side of the output) of every convolution, by running them on a map."""
    x = mx.nd.zeros((1, channels, size, size))
    seen = []
    for layer in net.layers:
        x = layer(x)
        if isinstance(layer, nn.Conv2D):
            seen.append((layer.weight.shape[2], x.shape[2]))
    return seen


@pytest.mark.parametrize(
    "size, expected",
    [
        (64, [(3, 64), (4, 32), (4, 16), (4, 8), (4, 4), (4, 2), (2, 1)]),
        (38, [(3, 38), (4, 19), (4, 9), (4, 4), (4, 2), (2, 1)]),
        (19, [(3, 19), (4, 9), (4, 4), (4, 2), (2, 1)]),
        (16, [(3, 16), (4, 8), (4, 4), (4, 2), (2, 1)]),  # figure 2
        (10, [(3, 10), (4, 5), (4, 2), (2, 1)]),
        (5, [(3, 5), (4, 2), (2, 1)]),
        (3, [(3, 3), (4, 1), (1, 1)]),
        (2, [(3, 2), (2, 1)]),
        (1, [(1, 1), (1, 1)]),
    ],
)
def test_blocks_by_map_size(size, expected):
    net = made(6, size, width=4)
    assert blocks(net, 6, size) == expected
    assert net(mx.nd.zeros((3, 6, size, size))).shape == (3,)


def test_norm_on_every_block_but_the_first():
    def kinds(norm):
        return [type(layer).__name__ for layer in made(6, 8, width=4, norm=norm).layers]

    first, last = ["Conv2D", "LeakyReLU"], ["Conv2D"]
    assert kinds("batch") == first + 2 * ["Conv2D", "BatchNorm", "LeakyReLU"] + last
    assert kinds("instance") == first + 2 * ["Conv2D", "InstanceNorm", "LeakyReLU"] + last
    assert kinds("none") == first + 2 * ["Conv2D", "LeakyReLU"] + last
    with pytest.raises(ValueError, match="norm must be one of batch, none, instance, joint, not 'layer'"):
        Discriminator(6, 8, norm="layer")


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_instance_norm_never_blinds_the_score(size):
    net = made(6, size, width=4, norm="instance")
    a, b = (net(mx.nd.random.normal(shape=(1, 6, size, size))).asscalar() for _ in range(2))
    assert a != b


def convolution(x, weight, stride, pad):
    kernel = weight.shape[2]
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    side = (x.shape[2] - kernel) // stride + 1
    out = np.zeros((len(x), len(weight), side, side))
    for y in range(side):
        for z in range(side):
            patch = x[:, :, y * stride : y * stride + kernel, z * stride : z * stride + kernel]
            out[:, :, y, z] = np.einsum("nckl,fckl->nf", patch, weight)
    return out


def forward(weights, scales, x, norm):
    """paper.md: 3x3 keeps, 4x4 stride 2 pad 1 halves, norm but on the first, LeakyReLU 0.2, one covers."""
    axes = {"batch": (0, 2, 3), "instance": (2, 3)}.get(norm)
    for index, weight in enumerate(weights[:-1]):
        x = convolution(x, weight, 2 if index else 1, weight.shape[2] // 2 if index == 0 else 1)
        if index and axes and x[0, 0].size > 1:
            x = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
            x *= scales[index - 1][:, None, None]
        x = np.where(x > 0, x, 0.2 * x)
    return convolution(x, weights[-1], 1, 0)[:, 0, 0, 0]


@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_scores_equal_numpy(size, norm):
    net = made(6, size, width=4, norm=norm)
    x = np.random.default_rng(0).standard_normal((3, 6, size, size))
    parameters = net.collect_params()
    weights = [p.data().asnumpy().astype("float64") for n, p in parameters.items() if n.endswith("weight")]
    scales = [p.data().asnumpy().astype("float64") for n, p in parameters.items() if n.endswith("gamma")]
    with autograd.train_mode():
        scores = net(mx.nd.array(x)).asnumpy()
    np.testing.assert_allclose(scores, forward(weights, scales, x, norm), rtol=1e-3, atol=1e-6)


# MXNet computes LeakyReLU in float32 always and InstanceNorm in nothing else: hence the larger steps.
@pytest.mark.parametrize(
    "norm, precision",
    [
        ("none", {"step": 1e-4, "rel": 2e-3}),
        ("batch", {"step": 1e-4, "rel": 2e-3}),
        ("instance", {"step": 3e-4, "rel": 2e-2, "dtype": "float32"}),
    ],
)
def test_gradients_equal_finite_differences(norm, precision, check_gradients):
    mx.random.seed(2)
    net = DNet([3, 4, 2], [8, 2, 1], width=4, norm=norm)
    net.initialize()
    for parameter in net.collect_params(".*weight").values():
        parameter.set_data(mx.nd.random.normal(0, 0.5, parameter.shape))
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((3, c, s, s)) for c, s in ((3, 8), (4, 2), (2, 1))]
    check_gradients(net, inputs, **precision)


def test_one_discriminator_a_map_with_the_papers_width_and_first_weights():
    mx.random.seed(0)
    net = DNet([512, 1024], [16, 1])
    net.initialize()
    scores = net(mx.nd.zeros((2, 512, 16, 16)), mx.nd.zeros((2, 1024, 1, 1)))
    assert [s.shape for s in scores] == [(2,), (2,)]
    weights = [p.data().asnumpy() for p in net.collect_params(".*weight").values()]
    assert [w.shape for w in weights] == [
        (512, 512, 3, 3),
        *[(512, 512, 4, 4)] * 3,
        (1, 512, 2, 2),
        (512, 1024, 1, 1),
        (1, 512, 1, 1),
    ]
    for weight in weights[:4]:
        assert abs(weight.mean()) < 1e-4 and weight.std() == pytest.approx(0.02, rel=0.01)
    scales = np.concatenate([p.data().asnumpy() for p in net.collect_params(".*gamma").values()])
    assert scales.mean() == pytest.approx(1, abs=0.003) and scales.std() == pytest.approx(0.02, rel=0.1)
    assert not list(net.collect_params(".*bias"))


@pytest.mark.parametrize("norm", [norm for norm in NORMS if norm != "joint"])
@pytest.mark.parametrize("compiled", [False, True])
def test_one_pass_over_real_and_fake_has_scores_and_gradients_of_two(norm, compiled):
    mx.random.seed(5)
    dnet = DNet([3, 5], [8, 1], width=4, norm=norm)
    dnet.initialize(mx.init.Normal(0.3), force_reinit=True)
    both = RealAndFake(dnet)
    if compiled:
        both.hybridize(static_alloc=True, static_shape=True)
    rng = np.random.default_rng(0)
    # The fake maps have another mean and spread: with statistics of both together the scores would differ.
    sides = [
        [mx.nd.array(rng.normal(mean, spread, (6, c, s, s))) for c, s in ((3, 8), (5, 1))]
        for mean, spread in ((0, 1), (2, 3))
    ]
    weights = [p for p in dnet.collect_params().values() if p.grad_req != "null"]
    found = []
    for scores in (lambda: [*dnet(*sides[0]), *dnet(*sides[1])], lambda: both(*sides[0], *sides[1])):
        with autograd.record():
            out = scores()
            loss = mx.nd.add_n(*[(k + 1) * score.mean() for k, score in enumerate(out)])
        loss.backward()
        found.append([score.asnumpy() for score in out] + [p.grad().asnumpy().copy() for p in weights])
    assert len(found[1]) == 4 + len(weights)
    for two, one in zip(*found):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * np.abs(two).max())


def test_a_joint_norm_takes_the_statistics_of_both_sides_together():
    mx.random.seed(5)
    net = DNet([3], [8], width=4, norm="joint")
    net.initialize(mx.init.Normal(0.3), force_reinit=True)
    real, fake = mx.nd.random.normal(0, 1, (4, 3, 8, 8)), mx.nd.random.normal(2, 3, (4, 3, 8, 8))
    with autograd.train_mode():
        (whole,) = net(mx.nd.concat(real, fake, dim=0))
        scores = RealAndFake(net)(real, fake)
    np.testing.assert_allclose(np.concatenate([s.asnumpy() for s in scores]), whole.asnumpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_cell_critic_scores_every_cell_by_its_channels(compiled):
    """Against NumPy: 1x1 convolutions with bias are matrix products, LeakyReLU 0.2 between them."""
    mx.random.seed(5)
    net = DNet([3, 5], [4, 1], width=6, kind="cell", hidden=True)
    net.initialize()
    for bias in net.collect_params(".*bias").values():
        bias.set_data(mx.nd.random.normal(shape=bias.shape))
    both = RealAndFake(net)
    if compiled:
        both.hybridize(static_alloc=True)
    sides = [[mx.nd.random.normal(shape=(2, c, s, s)) for c, s in ((3, 4), (5, 1))] for _ in range(2)]
    found = [array.asnumpy() for array in both(*sides[0], *sides[1])]
    scores, hidden = [], []
    for maps in sides:
        for critic, x in zip(net.discriminators, maps):
            x = x.asnumpy()
            for layer in (critic.layers[0], critic.layers[2], critic.layers[4]):
                weight, bias = layer.weight.data().asnumpy()[:, :, 0, 0], layer.bias.data().asnumpy()
                x = np.einsum("nchw,fc->nfhw", x, weight) + bias[:, None, None]
                if layer is critic.layers[4]:
                    scores.append(x.reshape(2, -1))
                else:
                    x = np.where(x > 0, x, 0.2 * x)
                    hidden.append(x)
    assert len(found) == len(scores) + len(hidden) == 4 + 8
    for own, expected in zip(found, [*scores, *hidden]):
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5)


def any_size(kind, norm, width=4):
    mx.random.seed(5)
    net = PatchCritic(6, width, norm) if kind == "patch" else Discriminator(6, None, width, norm)
    return large_weights(net)


def large_weights(net):
    """The net with weights from N(0, 0.4): with those that it draws itself scores hardly differ from 0."""
    net.initialize()
    for parameter in net.collect_params(".*weight").values():
        parameter.set_data(mx.nd.random.normal(0, 0.4, parameter.shape))
    return net


def forward_any_size(net, x, norm):
    """The mean over the cells; image: 3x3, twice 4x4 stride 2, 1x1; patch: 3x3, twice 1x1, 1x1, norm on each block."""
    axes = {"batch": (0, 2, 3), "instance": (2, 3)}.get(norm)
    parameters = net.collect_params().items()
    weights = [p.data().asnumpy().astype("float64") for n, p in parameters if n.endswith("weight")]
    scales = [p.data().asnumpy().astype("float64") for n, p in parameters if n.endswith("gamma")]
    patch = isinstance(net, PatchCritic)
    for index, weight in enumerate(weights[:-1]):
        strided = index > 0 and not patch
        x = convolution(x, weight, 2 if strided else 1, {1: 0, 3: 1, 4: 1}[weight.shape[2]])
        if axes and (patch or index):
            x = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
            x *= scales.pop(0)[:, None, None]
        x = np.where(x > 0, x, 0.2 * x)
    return convolution(x, weights[-1], 1, 0).mean(axis=(1, 2, 3))


@pytest.mark.parametrize("kind", ["image", "patch"])
@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
def test_a_critic_of_any_size_is_the_mean_over_cells(kind, norm):
    net = any_size(kind, norm)
    net.hybridize(static_alloc=True)
    for side in (8, 5, 12):  # one compiled graph, maps of several sizes
        x = np.random.default_rng(side).standard_normal((2, 6, side, side))
        with autograd.train_mode():
            scores = net(mx.nd.array(x)).asnumpy()
        np.testing.assert_allclose(scores, forward_any_size(net, x, norm), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["image", "patch"])
def test_each_image_counts_once_whatever_its_size(kind):
    net = any_size(kind, "none")
    small = mx.nd.array(np.random.default_rng(0).standard_normal((1, 6, 12, 16)))
    assert net(small).shape == (1,)
    flat = mx.nd.broadcast_axis(mx.nd.random.normal(shape=(1, 6, 1, 1)), axis=(2, 3), size=(40, 40))
    wide = mx.nd.broadcast_axis(flat[:, :, :1, :1], axis=(2, 3), size=(40, 80))
    assert net(wide).asscalar() == pytest.approx(net(flat).asscalar(), rel=0.2)


@pytest.mark.parametrize("kind, norm", [("image", "batch"), ("patch", "none")])
def test_gradients_of_a_critic_of_any_size_equal_finite_differences(kind, norm, check_gradients):
    mx.random.seed(2)
    net = large_weights(DNet([3], [None], width=4, norm=norm, kind=kind))
    check_gradients(net, [np.random.default_rng(0).standard_normal((2, 3, 6, 9))], step=1e-4, rel=2e-3)


@pytest.mark.parametrize("kind", ["image", "patch"])
@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
def test_real_and_fake_maps_of_any_size_are_scored_as_by_themselves(kind, norm):
    mx.random.seed(3)
    dnet = large_weights(DNet([5], [None], width=4, norm=norm, kind=kind, hidden=True))
    sides = [mx.nd.random.normal(mean, 1, (2, 5, 7, 9)) for mean in (0, 2)]
    with autograd.train_mode():
        found = RealAndFake(dnet)(*sides)
        apart = [dnet(side)[0] for side in sides]
    assert len(found) == 2 + 2 * 3
    for one, other in zip(found, apart):
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), rtol=1e-4, atol=1e-6)
