"""BatchNorm over several devices against one BatchNorm over the whole batch."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd
from mxnet.gluon import HybridBlock, nn

from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.network import split
from gan_kd.distill.discriminator import DNet, RealAndFake
from gan_kd.gluon.sync_bn import on_devices

TWO = [mx.cpu(0), mx.cpu(1)]


class Layers(HybridBlock):
    """Two BatchNorms behind a convolution; the second's settings are given."""

    def __init__(self, **settings):
        super().__init__()
        self.conv = nn.Conv2D(4, 3, in_channels=3, weight_initializer=mx.init.Xavier())
        self.first, self.second = nn.BatchNorm(in_channels=4), nn.BatchNorm(in_channels=4, **settings)

    def hybrid_forward(self, F, x):
        between = self.first(self.conv(x))
        return [between, self.second(F.relu(between))]


def trained(net, contexts, data, sync_bn=True):
    """Outputs, gradients summed over the devices, and statistics after a forward and a backward pass."""
    mx.random.seed(3)
    net.initialize(ctx=contexts, force_reinit=True)
    net.cast("float64")
    run = on_devices(net, sync_bn=sync_bn)
    shares = [
        [nd.array(part, ctx=c, dtype="float64")] for part, c in zip(np.array_split(data, len(contexts)), contexts)
    ]
    with autograd.record():
        outputs = run(shares)
        losses = [nd.add_n(*[nd.sum(nd.sin(m)) for m in maps]) for maps in outputs]
    autograd.backward(losses)
    parameters = net._collect_params_with_prefix().items()
    sums = {name: sum(g.asnumpy() for g in p.list_grad()) for name, p in parameters if p.grad_req != "null"}
    kept = {name: [d.asnumpy() for d in p.list_data()] for name, p in parameters}
    return sum(loss.asscalar() for loss in losses), sums, kept


@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"epsilon": 0.1, "momentum": 0.5}], ids=str)
def test_uneven_shares_give_what_the_whole_batch_gives(settings):
    data = np.random.default_rng(0).standard_normal((5, 3, 6, 6)) + 3
    one, two = (trained(Layers(**settings), contexts, data) for contexts in (TWO[:1], TWO))
    assert two[0] == pytest.approx(one[0], rel=1e-6)
    for name, gradient in one[1].items():
        np.testing.assert_allclose(two[1][name], gradient, atol=1e-6, err_msg=name)
    for name, (value,) in one[2].items():
        for copy in two[2][name]:
            np.testing.assert_allclose(copy, value, atol=1e-6, err_msg=name)


def test_without_it_each_device_has_its_own_statistics():
    data = np.random.default_rng(0).standard_normal((5, 3, 6, 6))
    first, second = trained(Layers(), TWO, data, sync_bn=False)[2]["first.running_mean"]
    assert np.abs(first - second).max() > 1e-3


def test_statistics_stay_unless_autograd_records():
    net = Layers()
    net.initialize(ctx=TWO)
    run = on_devices(net, sync_bn=True)
    with autograd.train_mode():
        run([[nd.ones((2, 3, 6, 6), ctx=context)] for context in TWO])
    assert not any(data.asnumpy().any() for data in net.first.running_mean.list_data())


@pytest.mark.parametrize("backbone", ["resnet18_v1", "mobilenetv2_1.0", "resnet34_v1b"])
def test_every_kind_of_extractor_runs_and_keeps_its_names(backbone):
    extractor, _ = split(zoo.build(backbone, 300 if backbone == "resnet34_v1b" else 64, ["a"]))
    names = list(extractor._collect_params_with_prefix())
    extractor.collect_params().reset_ctx(TWO)
    run = on_devices(extractor, sync_bn=True)
    image = np.random.default_rng(0).standard_normal((2, 3, extractor.size, extractor.size)).astype("float32")
    with autograd.record():
        outputs = run([[nd.array(image[[row]], ctx=context)] for row, context in enumerate(TWO)])
    for device, maps in enumerate(outputs):
        assert [m.shape for m in maps] == [(1, c, s, s) for c, s in zip(extractor.channels, extractor.sizes)]
        assert {m.context for m in maps} == {TWO[device]}
    assert list(extractor._collect_params_with_prefix()) == names


def test_real_and_fake_maps_keep_statistics_apart():
    """As in D's own pass: those of each side over all devices."""
    dnet = DNet([3, 2], [8, 4], width=4)
    dnet.initialize(ctx=TWO)
    both = RealAndFake(dnet)
    rng = np.random.default_rng(0)
    whole = [rng.standard_normal((4, c, s, s)).astype("float32") for c, s in [(3, 8), (2, 4)] * 2]
    with autograd.train_mode():
        expected = both(*map(nd.array, whole))
        shares = [
            [nd.array(m[rows], ctx=c) for m in whole] for rows, c in ((slice(0, 3), TWO[0]), (slice(3, 4), TWO[1]))
        ]
        found = on_devices(both, 4, sync_bn=True)(shares)
    for score, *parts in zip(expected, *found):
        np.testing.assert_allclose(np.concatenate([p.asnumpy() for p in parts]), score.asnumpy(), atol=1e-5)
