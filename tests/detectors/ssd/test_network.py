"""Every SSD of GluonCV's zoo, taken apart and put together, detects the same, and files go both ways."""

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo import get_model
from mxnet import autograd

from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.head import new_head
from gan_kd.detectors.ssd.network import join, split
from gan_kd.errors import UsageError
from gan_kd.gluon.initial import initialise

CLASSES = ["cat", "cow", "dog"]
# Seconds each on one core: the deep ones, and COCO's 80 classes where VOC's 20 run the same code.
SLOW = ("resnet101", "resnet152", "vgg16", "resnet50", "_coco")


def detections(net, x):
    return [y.asnumpy() for y in net(x)]


def assert_equal(ours, theirs):
    for y, expected in zip(ours, theirs):
        np.testing.assert_array_equal(y, expected)
    assert (theirs[1] > 0.01).sum() >= 5, "too few detections to tell anything"


def zoo_network(name):
    """As GluonCV makes it, with first weights and BatchNorm statistics unlike the identity."""
    mx.random.seed(0)  # or how many boxes are left would depend on the tests before
    net = get_model(name, pretrained=False, pretrained_base=False)
    size = int(name.split("_")[1])
    zoo._set_shapes(net, size)
    initialise(net.collect_params().values())
    for parameter in net.collect_params(".*(gamma|var|beta|mean)").values():
        parameter.set_data(parameter.data() + mx.nd.random.uniform(0, 0.2, parameter.shape))
    return net, mx.nd.random.normal(shape=(1, 3, size, size))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if any(part in name for part in SLOW) else ())
        for name in zoo.zoo_names()
    ],
)
def test_split_then_join_is_bit_equal_and_loads_in_gluoncv(name, tmp_path):
    mx.random.seed(1)
    net, x = zoo_network(name)
    expected = detections(net, x)
    joined = join(*split(net))
    assert_equal(detections(joined, x), expected)
    joined.hybridize(static_alloc=True, static_shape=True)
    assert_equal(detections(joined, x), expected)
    joined.save(tmp_path / "joined.params")
    loaded = get_model(name, pretrained=False, pretrained_base=False)
    loaded.load_parameters(str(tmp_path / "joined.params"))
    assert_equal(detections(loaded, x), expected)


def test_a_network_of_simple_operators_is_bit_equal_too():
    """GluonCV decodes boxes so where it loads its own weights."""
    net, x = zoo_network("ssd_300_mobilenet0.25_voc")
    net.bbox_decoder._minimal_opset = True
    assert_equal(detections(join(*split(net)), x), detections(net, x))


@pytest.mark.parametrize("topk", [50, 20, -1])  # 20 is less than what leaves
def test_nms_settings_are_gluoncvs(topk):
    net, x = zoo_network("ssd_300_mobilenet0.25_voc")
    net.set_nms(0.3, topk, 30)
    assert_equal(detections(join(*split(net), nms=0.3, nms_topk=topk, post_nms=30), x), detections(net, x))


@pytest.mark.parametrize(
    "name, backbone, size",
    [
        ("ssd_512_mobilenet1.0_custom", "mobilenet1.0", 512),
        ("ssd_300_vgg16_atrous_custom", "vgg16_atrous", 300),
        ("ssd_300_resnet34_v1b_custom", "resnet34_v1b", 300),
    ],
)
def test_own_classes_load_in_gluoncvs_custom_networks(name, backbone, size, tmp_path):
    detector = join(*split(zoo.build(backbone, size, CLASSES)))
    detector.save(tmp_path / "own.params")
    loaded = get_model(name, classes=CLASSES, pretrained_base=False)
    loaded.load_parameters(str(tmp_path / "own.params"))
    x = mx.nd.random.normal(shape=(1, 3, size, size))
    assert_equal(detections(loaded, x), detections(detector, x))


def test_nothing_is_copied_by_split_and_join():
    net = zoo.build("mobilenet0.25", 128, CLASSES)
    ours = join(*split(net)).weights()
    theirs = net._collect_params_with_prefix()
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in theirs)


def test_head_and_detector_serve_training_and_evaluation_in_turn():
    """GluonCV's own SSD, hybridized, keeps the graph of the first mode."""
    extractor, head = split(zoo.build("mobilenet0.25", 128, CLASSES))
    detector = join(extractor, head)
    for block in (extractor, head, detector):
        block.hybridize(static_alloc=True, static_shape=True)
    x = mx.nd.random.normal(shape=(2, 3, 128, 128))
    for _ in range(2):
        before = detections(detector, x)
        with autograd.record():
            cls_preds, box_preds = head(*extractor(x))
            loss = (cls_preds**2).mean() + (box_preds**2).mean()
        loss.backward()
        assert cls_preds.shape == (2, 390, 4) and box_preds.shape == (2, 390, 4)
        for parameter in head.collect_params(".*weight").values():
            assert parameter.grad().norm().asscalar() > 0
            parameter.set_data(parameter.data() * 0.5)
        assert not np.array_equal(detections(detector, x)[1], before[1])


def distilled():
    """What the method deploys: a small extractor, adapters and a copy of a larger network's head."""
    student, _ = split(zoo.build("mobilenet0.25", 128, CLASSES))
    teacher, head = split(zoo.build("mobilenet0.5", 128, CLASSES))
    adapters = Adapters(student.channels, teacher.channels)
    adapters.initialize()
    return join(student, new_head(head), adapters)


def test_a_detector_with_adapters_saves_and_loads_all_of_it(tmp_path):
    mx.random.seed(4)
    detector, other = distilled(), distilled()
    x = mx.nd.random.normal(shape=(2, 3, 128, 128))
    detector.save(tmp_path / "new folder" / "distilled.params")
    assert sorted(
        name for name in mx.nd.load(str(tmp_path / "new folder" / "distilled.params")) if name.startswith("adapters")
    ) == ["adapters.maps.0.bias", "adapters.maps.0.weight", "adapters.maps.1.bias", "adapters.maps.1.weight"]
    assert not np.array_equal(detections(other, x)[1], detections(detector, x)[1])
    other.load(tmp_path / "new folder" / "distilled.params")
    assert_equal(detections(other, x), detections(detector, x))


def test_a_detector_moves_to_other_contexts_as_a_whole(tmp_path):
    detector = distilled()
    x = mx.nd.random.normal(shape=(2, 3, 128, 128))
    expected = detections(detector, x)
    detector.collect_params().reset_ctx([mx.cpu(1), mx.cpu(2)])
    detector.hybridize(static_alloc=True, static_shape=True)
    for context in (mx.cpu(1), mx.cpu(2)):
        assert_equal(detections(detector, x.as_in_context(context)), expected)
    detector.save(tmp_path / "moved.params")
    other = distilled()
    other.load(tmp_path / "moved.params")
    assert_equal(detections(other, x), expected)
    rejoined = join(detector.extractor, detector.head, detector.adapters)
    assert_equal(detections(rejoined, x.as_in_context(mx.cpu(2))), expected)


@pytest.mark.parametrize(
    "backbone, size, classes, sentence",
    [
        ("mobilenet0.5", 128, 3, r"has the shape \(16, 3, 3, 3\) there and \(8, 3, 3, 3\) here"),
        ("mobilenet0.25", 128, 2, r"'class_predictors.0.predictor.weight' .* \(2 classes there, 3 here\)"),
        (
            "mobilenet0.25",
            256,
            3,
            "'anchor_generators.0.anchors' differs: the file is for another input size",
        ),
        (
            "resnet18_v1",
            128,
            3,
            r"\d+ of its \d+ arrays are missing, first 'features.mobilenet0_conv0_weight'",
        ),
    ],
)
def test_files_of_other_detectors(tmp_path, backbone, size, classes, sentence):
    path = tmp_path / "other.params"
    join(*split(zoo.build(backbone, size, CLASSES[:classes]))).save(path)
    detector = join(*split(zoo.build("mobilenet0.25", 128, CLASSES)))
    before = {name: p.data().asnumpy() for name, p in detector.weights().items()}
    with pytest.raises(UsageError, match=sentence) as caught:
        detector.load(path, "the student mobilenet0.25")
    assert f"{path} does not hold the weights of the student mobilenet0.25" in str(caught.value)
    assert all(np.array_equal(p.data().asnumpy(), before[name]) for name, p in detector.weights().items())


def test_with_and_without_adapters_are_different_detectors(tmp_path):
    detector = distilled()
    detector.save(tmp_path / "with.params")
    without = join(detector.extractor, new_head(split(zoo.build("mobilenet0.25", 128, CLASSES))[1]))
    with pytest.raises(UsageError, match="the file has 4 arrays too many, first 'adapters.maps.0"):
        without.load(tmp_path / "with.params")
