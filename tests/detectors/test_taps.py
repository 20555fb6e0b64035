"""Backbones beyond those with established taps: what is tapped, the SSD on them, wrong taps."""

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo import get_model_list
from mxnet import autograd

from gan_kd.detectors import taps
from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.network import join, split
from gan_kd.errors import UsageError
from gan_kd.recipe.backbones import BY_STRIDE

CLASSES = ["cat", "cow", "dog"]
#: Backbone -> channels of its maps of stride 16 and 32; the activations differ in kind.
OTHERS = {
    "resnet18_v2": (256, 512),  # before the first convolution of a stage
    "resnet18_v1b": (256, 512),
    "mobilenetv3_small": (288, 576),  # hard swish, squeeze and excitation; its blocks are counted by process
    "densenet121": (1024, 1024),  # the one activation of a transition
}


@pytest.mark.parametrize("backbone", ["mobilenet0.25", "mobilenetv2_1.0", "resnet18_v1", "resnet50_v1"])
def test_taps_found_by_stride_are_the_established_ones(backbone):
    assert list(taps.found(backbone)) == zoo._TAPS[backbone]


def test_names_are_of_gluoncvs_zoo_and_none_is_there_twice():
    assert set(BY_STRIDE) <= set(get_model_list())
    assert len(set(zoo.backbones())) == len(zoo.backbones()) and not set(BY_STRIDE) & set(zoo._TAPS)


@pytest.mark.parametrize("backbone", OTHERS)
def test_an_ssd_on_any_backbone(backbone, tmp_path):
    net = zoo.build(backbone, 128, CLASSES)
    extractor, head = split(net)
    assert extractor.sizes == [8, 4, 2, 1, 1, 1]
    assert extractor.channels == [*OTHERS[backbone], 512, 512, 256, 256]
    x = mx.nd.random.normal(shape=(2, 3, 128, 128))
    maps = extractor(x)
    assert [m.shape[1:] for m in maps] == [(c, s, s) for c, s in zip(extractor.channels, extractor.sizes)]
    detector = join(extractor, head)
    for ours, theirs in zip(detector(x), net(x)):
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())
    path = tmp_path / "net.params"
    detector.save(path)
    again = join(*split(zoo.build(backbone, 128, CLASSES, taps=taps.found.__wrapped__(backbone))))
    again.load(path)
    np.testing.assert_array_equal(detector(x)[1].asnumpy(), again(x)[1].asnumpy())


def test_taps_of_ones_own_give_other_maps():
    three = ["relu10_fwd", "relu22_fwd", "relu26_fwd"]
    extractor, head = split(zoo.build("mobilenet0.25", 128, CLASSES, taps=three))
    assert extractor.sizes == [16, 8, 4, 2, 1, 1, 1] and extractor.channels[:3] == [64, 128, 256]
    with autograd.predict_mode():
        scores, boxes = head(*extractor(mx.nd.zeros((1, 3, 128, 128))))
    assert scores.shape[1] == boxes.shape[1] == len(head.anchors(extractor.sizes))


@pytest.mark.parametrize(
    "backbone, given, sentence",
    [
        ("mobilenet0.25", ["relu22_fw", "relu26_fwd"], "has no map relu22_fw to tap (did you mean relu22_fwd?)"),
        ("mobilenet0.25", ["relu26_fwd", "relu22_fwd"], "from large to small, .* relu26_fwd 4x4, relu22_fwd 8x8"),
        ("mobilenet0.25", ["relu26_fwd"], "two or three maps"),
        ("vgg16_atrous", ["relu1_fwd"], "vgg16_atrous has extra layers of its own and takes no taps"),
        ("squeezenet1.0", None, "squeezenet1.0 has no map of stride 32 that an SSD could tap; name taps of your own"),
        ("resnet18_v3", None, "unknown backbone 'resnet18_v3'; did you mean 'resnet18_v"),
    ],
)
def test_wrong_taps(backbone, given, sentence):
    sentence = sentence.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")
    with pytest.raises(UsageError, match=sentence):
        zoo.build(backbone, 128, CLASSES, taps=given)
