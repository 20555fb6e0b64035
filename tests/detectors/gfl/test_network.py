"""FPN and head against the published network's outputs; backbones with their strides and ImageNet weights."""

import math

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd
from mxnet.gluon import HybridBlock

from gan_kd.detectors.gfl import network, priors
from gan_kd.errors import UsageError
from gan_kd.recipe import Gfl


def copy(reference, name, block, part=""):
    for kind in ("weight", "bias"):
        key = f"net/{name}{part}.{kind}"
        if key in reference and getattr(block, kind, None) is not None:
            getattr(block, kind).set_data(nd.array(reference[key]))


class Both(HybridBlock):
    """Maps of a backbone -> levels, class and box logits."""

    def __init__(self, fpn, head):
        super().__init__()
        self.fpn, self.head = fpn, head

    def hybrid_forward(self, F, *maps):
        levels = self.fpn(*maps)
        return [*levels, *self.head(*levels)]


@pytest.fixture
def published(reference):
    """FPN and head with the published weights."""
    fpn, head = network.FPN([4, 6, 8], 8), network.GFLHead("abc", Gfl(width=8, convolutions=2, groups=4))
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
    return Both(fpn, head)


@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_fpn_and_head_are_the_published_ones(reference, published, hybridized, training):
    if hybridized:
        published.hybridize()
    with autograd.record(train_mode=training):
        *levels, classes, boxes = published(*(nd.array(reference[f"net/c{k}"]) for k in (3, 4, 5)))
    for k, level in enumerate(levels, start=3):
        np.testing.assert_allclose(level.asnumpy(), reference[f"net/p{k}"], atol=2e-6)
    for name, found in zip(("cls", "reg"), (classes, boxes)):
        maps = [reference[f"net/{name}_p{k}"] for k in range(3, 8)]
        rows = np.concatenate([m.reshape(*m.shape[:2], -1).transpose(0, 2, 1) for m in maps], axis=1)
        np.testing.assert_allclose(found.asnumpy(), rows, atol=2e-6)


def test_a_fresh_head_starts_as_published():
    mx.random.seed(0)
    head = network.GFLHead("abcde", Gfl(64, 1, 8, 8))
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


def test_imagenet_weights_are_loaded(shared, tmp_path):
    path, older = shared / "weights/mobilenet0.25.params", tmp_path / "older.params"
    arrays = mx.nd.load(str(path))
    for file in (path, older):
        extractor = network.GFLExtractor(network.backbone("mobilenet0.25"), 8, 128)
        extractor.initialize()
        extractor.load_backbone("mobilenet0.25", file)
        named = extractor.backbone._collect_params_with_prefix()
        assert all((parameter.data() == arrays[name]).asnumpy().all() for name, parameter in named.items())
        before_1_3 = {parameter.name.partition("_")[2]: parameter.data() for parameter in named.values()}
        mx.nd.save(str(older), {**before_1_3, "dense0_weight": nd.zeros((1, 1))})
    with pytest.raises(UsageError, match="does not hold the weights of the backbone resnet18_v1"):
        network.GFLExtractor(network.backbone("resnet18_v1"), 8, 128).load_backbone("resnet18_v1", path)


def test_a_frozen_backbone_keeps_its_stem_and_all_statistics():
    backbone = network.backbone("resnet18_v1", freeze=True)
    backbone.initialize()
    names = backbone._collect_params_with_prefix()
    before = {name: parameter.data().asnumpy() for name, parameter in names.items()}
    x = nd.random.normal(shape=(2, 3, 64, 64))
    with autograd.record():
        total = nd.add_n(*[nd.sum(m) for m in backbone(x)])
    total.backward()
    stem = {name for name, parameter in names.items() if parameter.grad_req == "null" and "running" not in name}
    assert stem == {name for name in names if name.split(".")[1] in "0134" and "running" not in name}
    for name, parameter in names.items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), before[name])
    outside = names["features.5.0.body.0.weight"]
    assert np.abs(outside.grad().asnumpy()).max() > 0
