"""FPN and head against the published network's outputs; backbones with their strides and ImageNet weights."""

import math

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd

from gan_kd.detectors.gfl import network, priors
from gan_kd.errors import UsageError


def copy(reference, name, block, part=""):
    for kind in ("weight", "bias"):
        key = f"net/{name}{part}.{kind}"
        if key in reference and getattr(block, kind, None) is not None:
            getattr(block, kind).set_data(nd.array(reference[key]))


@pytest.fixture
def published(reference):
    """FPN and head with the published weights."""
    fpn, head = network.FPN([4, 6, 8], 8), network.GFLHead(3, 8, convolutions=2, groups=4)
    for block in (fpn, head):
        block.initialize()
    for index, block in enumerate(fpn.lateral):
        copy(reference, f"fpn/lateral_convs.{index}", block, ".conv")
    for index, block in enumerate([*fpn.output, *fpn.extra]):
        copy(reference, f"fpn/fpn_convs.{index}", block, ".conv")
    for tower, name in ((head.class_tower, "cls_convs"), (head.box_tower, "reg_convs")):
        for index in range(2):
            copy(reference, f"head/{name}.{index}", tower[3 * index], ".conv")
            norm = tower[3 * index + 1]
            norm.gamma.set_data(nd.array(reference[f"net/head/{name}.{index}.norm.weight"].reshape(-1, 1, 1, 1)))
            norm.beta.set_data(nd.array(reference[f"net/head/{name}.{index}.norm.bias"]))
    copy(reference, "head/gfl_cls", head.class_logits)
    copy(reference, "head/gfl_reg", head.box_logits)
    for index, scale in enumerate(head.scales):
        scale.scale.set_data(nd.array(reference[f"net/head/scales.{index}.scale"].reshape(1)))
    return fpn, head


@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_fpn_and_head_are_the_published_ones(reference, published, hybridized, training):
    fpn, head = published
    if hybridized:
        fpn.hybridize()
        head.hybridize()
    with autograd.record(train_mode=training):
        levels = fpn(*(nd.array(reference[f"net/c{k}"]) for k in (3, 4, 5)))
        outputs = head(*levels)
    for k, level in enumerate(levels, start=3):
        np.testing.assert_allclose(level.asnumpy(), reference[f"net/p{k}"], atol=2e-6)
    for name, found in zip(("cls", "reg"), outputs):
        maps = [reference[f"net/{name}_p{k}"] for k in range(3, 8)]
        rows = np.concatenate([m.reshape(*m.shape[:2], -1).transpose(0, 2, 1) for m in maps], axis=1)
        np.testing.assert_allclose(found.asnumpy(), rows, atol=2e-6)


def test_a_fresh_head_starts_as_published():
    mx.random.seed(0)
    head = network.GFLHead(5, 64, convolutions=1, groups=8, reg_max=8)
    head.initialize()
    assert head.class_logits.bias.data().asnumpy() == pytest.approx(np.full(5, -math.log(99)))
    assert (head.box_logits.bias.data().asnumpy() == 0).all()
    assert head.box_logits.weight.shape[0] == 36  # 4 edges of 9 bins
    assert head.class_tower[0].weight.data().asnumpy().std() == pytest.approx(0.01, rel=0.02)
    assert [scale.scale.data().asscalar() for scale in head.scales] == [1] * 5


def test_a_fresh_pyramid_is_uniform_without_bias():
    fpn = network.FPN([16, 16, 16], 48)
    fpn.initialize()
    for block, inputs, cells in ((fpn.lateral[0], 16, 1), (fpn.output[0], 48, 9), (fpn.extra[1], 48, 9)):
        weight, bound = block.weight.data().asnumpy(), math.sqrt(6 / ((inputs + 48) * cells))
        assert 0.98 * bound < np.abs(weight).max() <= bound
        assert (block.bias.data().asnumpy() == 0).all()


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("mobilenet0.25", [64, 128, 256]),
        ("mobilenetv2_1.0", [32, 96, 1280]),
        ("resnet18_v1", [128, 256, 512]),
        ("resnet50_v1", [512, 1024, 2048]),
    ],
)
def test_backbones_give_three_strides(name, channels):
    backbone = network.backbone(name)
    assert backbone.channels == channels
    width, height = 96, 72  # px; no multiple of 32
    maps = mx.sym.Group(backbone(mx.sym.var("data"))).infer_shape(data=(1, 3, height, width))[1]
    assert maps == [(1, c, *shape) for c, shape in zip(channels, priors.shapes(width, height))]


def test_imagenet_weights_are_loaded(shared):
    path = shared / "weights/mobilenet0.25.params"
    backbone = network.backbone("mobilenet0.25", str(path))
    arrays = mx.nd.load(str(path))
    for name, parameter in backbone._collect_params_with_prefix().items():
        assert (parameter.data() == arrays[name]).asnumpy().all()
    with pytest.raises(UsageError, match="does not hold the weights of the backbone resnet18_v1"):
        network.backbone("resnet18_v1", str(path))


def test_an_unknown_backbone_is_refused():
    with pytest.raises(UsageError, match="no backbone 'resnet19_v1' .did you mean resnet1"):
        network.backbone("resnet19_v1")
