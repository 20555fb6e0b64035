"""First weights of a YOLOv3, and GluonCV's trained ones."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo import get_model

from gan_kd.detectors.yolo3 import zoo
from gan_kd.errors import UsageError

CLASSES = ["cat", "cow", "dog"]
SMALL = (32, 16, 8)


def values(net):
    return {name: parameter.data().asnumpy() for name, parameter in net._collect_params_with_prefix().items()}


def test_first_weights_follow_the_seed():
    drawn = []
    for seed in (1, 1, 2):
        mx.random.seed(seed)
        drawn.append(values(zoo.build("mobilenet0.25", CLASSES, SMALL, objectness=-4.6)))
    name = "yolo_blocks.1.body.2.0.weight"
    np.testing.assert_array_equal(drawn[0][name], drawn[1][name])
    assert not np.array_equal(drawn[0][name], drawn[2][name])
    bias = drawn[0]["yolo_outputs.2.prediction.bias"].reshape(3, 8)
    np.testing.assert_array_equal(bias[:, 4], np.float32([-4.6] * 3))
    assert not np.delete(bias, 4, axis=1).any()


def test_backbone_of_a_file(tmp_path):
    classifier = get_model("mobilenet0.25", pretrained=False)
    classifier.initialize(mx.init.Normal(0.5))
    classifier(mx.nd.zeros((1, 3, 64, 64)))
    mx.nd.waitall()  # a pass without training lays weights out anew while it runs
    classifier.save_parameters(str(tmp_path / "backbone.params"))
    found = values(zoo.build("mobilenet0.25", CLASSES, SMALL, str(tmp_path / "backbone.params")))
    layers = [parameter.data().asnumpy() for parameter in classifier.features.collect_params().values()]
    loaded = [value for name, value in found.items() if name.startswith("stages.")]
    assert len(loaded) == len(layers) == 27 * 5
    np.testing.assert_array_equal(
        sorted(float(np.abs(value).sum()) for value in loaded), sorted(float(np.abs(value).sum()) for value in layers)
    )
    np.testing.assert_array_equal(found["stages.1.0.weight"], classifier.features[33].weight.data().asnumpy())


def test_another_backbones_file_is_refused(tmp_path):
    other = get_model("mobilenet0.5", pretrained=False)
    other.initialize()
    other(mx.nd.zeros((1, 3, 64, 64)))
    mx.nd.waitall()
    other.save_parameters(str(tmp_path / "other.params"))
    with pytest.raises(UsageError, match="does not hold the weights of the backbone mobilenet0.25"):
        zoo.build("mobilenet0.25", CLASSES, SMALL, str(tmp_path / "other.params"))


def test_trained_detectors_have_gluoncvs_layout(tmp_path, monkeypatch):
    theirs = get_model("yolo3_mobilenet1.0_voc", pretrained=False, pretrained_base=False)
    theirs.initialize()
    x = mx.nd.random.normal(shape=(1, 3, 64, 64))
    theirs(x)
    theirs.save_parameters(str(tmp_path / "zoo.params"))
    asked = []
    monkeypatch.setattr(zoo, "weights_file", lambda name: asked.append(name) or str(tmp_path / "zoo.params"))
    net = zoo.load_zoo_detector("mobilenet1.0", "voc")
    assert asked == ["yolo3_mobilenet1.0_voc"] and tuple(net.classes) == tuple(theirs.classes)
    expected, found = values(theirs), values(net)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
