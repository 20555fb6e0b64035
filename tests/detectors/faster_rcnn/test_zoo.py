"""Backbones by name: GluonCV's own Faster R-CNNs, what is trained of them, and what cannot carry one."""

from __future__ import annotations

import dataclasses

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo import get_model
from mxnet import nd

from gan_kd.detectors.faster_rcnn import settings, zoo
from gan_kd.detectors.faster_rcnn.network import join
from gan_kd.errors import UsageError
from gan_kd.recipe.faster_rcnn import BACKBONES, longest
from gan_kd.recipe.faster_rcnn import FasterRCNN as Config

from .conftest import CLASSES, SIZES, SMALL


def trained(parts):
    """Names, as in files, of what has a gradient."""
    return {name for name, parameter in weights_of(parts).items() if parameter.grad_req != "null"}


def weights_of(parts):
    extractor, head = parts
    return {**extractor._collect_params_with_prefix(), **head.weights()}


@pytest.mark.parametrize("backbone", ["resnet50_v1b", "resnet101_v1d"])
def test_a_zoo_network_has_the_same_parameters_and_trains_the_same(backbone):
    mx.random.seed(0)
    theirs = get_model(f"faster_rcnn_{backbone}_voc", pretrained=False, pretrained_base=False)
    parts = zoo.assemble(backbone, theirs.classes, Config())
    ours = weights_of(parts)
    named = theirs._collect_params_with_prefix()
    assert ours.keys() == named.keys()
    for name, parameter in named.items():
        assert all(a in (0, b) for a, b in zip(parameter.shape, ours[name].shape)), name
    pattern = {id(parameter) for parameter in theirs.collect_train_params().values()}
    expected = {name for name, parameter in named.items() if id(parameter) in pattern}
    assert len(expected) == {"resnet50_v1b": 53, "resnet101_v1d": 104}[backbone]
    expected.remove("rpn.anchor_generator.anchors")  # matches GluonCV's pattern, but is a constant
    assert trained(parts) == expected


def test_with_statistics_alone_frozen_all_else_is_trained():
    parts = zoo.assemble("mobilenet0.25", CLASSES, SMALL)
    left = set(weights_of(parts)) - trained(parts)
    assert left and all("running" in name or name.endswith("anchors") for name in left)


def test_published_freezes_the_stem_of_a_mobilenet():
    found = trained(zoo.assemble("mobilenet0.25", CLASSES, dataclasses.replace(SMALL, frozen="published")))
    assert "features.0.weight" not in found and not any("gamma" in name for name in found)
    assert {"features.66.weight", "rpn.score.bias", "box_predictor.weight"} <= found


@pytest.mark.parametrize("as_trained", [True, False])
def test_a_lent_head_has_the_layers_of_the_teachers_and_parameters_of_its_own(as_trained):
    mx.random.seed(0)
    _, head = zoo.build("mobilenet0.25", CLASSES, SMALL)
    lent = zoo.new_head(head, as_trained)
    pairs = [(lent.weights()[name], parameter) for name, parameter in head.weights().items()]
    assert all(one is not other for one, other in pairs)
    equal = [np.array_equal(one.data().asnumpy(), other.data().asnumpy()) for one, other in pairs]
    assert all(equal) if as_trained else not all(equal)
    assert [one.grad_req for one, _ in pairs] == [other.grad_req for _, other in pairs]


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if "101" not in name and "152" not in name])
def test_the_backbones_that_recipes_can_name_carry_one(backbone):
    layers = zoo.cut(backbone)
    assert len(layers.top) and layers.channels > 0


@pytest.mark.parametrize(
    "backbone, channels",
    [
        ("mobilenet1.0", 512),
        ("mobilenetv2_0.5", 48),
        ("resnet18_v1", 256),
        ("resnet18_v1b", 256),
        ("resnet50_v1d", 1024),
        ("resnet50_v2", 1024),
    ],
)
def test_backbones_are_cut_behind_stride_16(backbone, channels):
    layers = zoo.cut(backbone)
    assert layers.channels == channels
    shapes = zoo._shapes(layers.features, (1, 3, 100, 161))[1]
    assert shapes == [(1, channels, 7, 11)]
    (top,) = zoo._shapes(layers.top, (1, channels, 14, 14))[1]
    assert top[2:] == (7, 7)


@pytest.mark.parametrize(
    "backbone, what",
    [("resnet_50", "no backbone"), ("vgg16", "round"), ("squeezenet1.0", "stride 16"), ("densenet121", "round")],
)
def test_what_cannot_carry_one_is_refused(backbone, what):
    with pytest.raises(UsageError, match=what):
        zoo.assemble(backbone, CLASSES, SMALL)


def test_a_backbones_file_sets_its_layers_and_no_others(tmp_path):
    mx.random.seed(0)
    net = get_model("mobilenet0.25", pretrained=False)
    net.initialize(mx.init.Uniform(0.5))
    net(nd.zeros((1, 3, 64, 64)))
    nd.waitall()  # a pass without training lays weights out anew while it runs
    net.save_parameters(str(tmp_path / "backbone.params"))
    extractor, head = zoo.build("mobilenet0.25", CLASSES, SMALL, init=str(tmp_path / "backbone.params"))
    theirs = list(net.features._children.values())
    pairs = zip([*extractor.features, *head.top_features], theirs)
    for ours, layer in pairs:
        for one, other in zip(ours.collect_params().values(), layer.collect_params().values()):
            np.testing.assert_array_equal(one.data().asnumpy(), other.data().asnumpy())
    with pytest.raises(UsageError, match="backbone mobilenet0.5"):
        zoo.build("mobilenet0.5", CLASSES, SMALL, init=str(tmp_path / "backbone.params"))


def test_imagenet_weights_of_the_zoo_load(shared):
    path = shared / "weights" / "mobilenet0.25.params"
    extractor, _ = zoo.build("mobilenet0.25", CLASSES, SMALL, init=str(path))
    assert float(extractor.features[0].weight.data().norm().asscalar()) > 0


def test_first_weights_follow_the_seed():
    def first():
        mx.random.seed(3)
        extractor, head = zoo.build("mobilenet0.25", CLASSES, SMALL)
        return [p.data().asnumpy() for p in join(extractor, head, SIZES).weights().values()]

    for one, other in zip(first(), first()):
        np.testing.assert_array_equal(one, other)


def test_settings_are_the_zoos():
    theirs = get_model("faster_rcnn_resnet50_v1b_voc", pretrained=False, pretrained_base=False)
    own = Config()
    assert (theirs.rpn._train_pre_nms, theirs.rpn._test_pre_nms) == (settings.TRAIN_PRE_NMS, settings.TEST_PRE_NMS)
    assert (theirs.rpn._train_post_nms, theirs.rpn._test_post_nms) == (own.train_proposals, own.test_proposals)
    assert theirs.rpn.region_proposer._min_size == own.min_size and theirs._num_sample == own.samples
    assert (theirs.sampler._max_pos, theirs.sampler._pos_iou_thresh) == (settings.positives(own), settings.POSITIVE_IOU)
    assert (theirs.nms_thresh, theirs.nms_topk, theirs._roi_size[0], theirs._roi_mode) == (0.3, 400, 14, "align")
    assert theirs.rpn.anchor_generator.num_depth == settings.anchors_per_cell(own)
    assert (theirs.short, theirs.max_size) == (600, longest(600)) and longest(800) == 1333
