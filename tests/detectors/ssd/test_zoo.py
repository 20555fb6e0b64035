"""Networks by name against GluonCV's own, first weights from every source, wrong requests."""

import hashlib

import mxnet as mx
import numpy as np
import pytest
from gluoncv.data import COCODetection, VOCDetection
from gluoncv.model_zoo import get_model, model_store
from gluoncv.nn.feature import FeatureExtractor

from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.network import split
from gan_kd.errors import RunError, UsageError

CLASSES = ["cat", "cow", "dog"]
LOCAL = ["mobilenet0.25", "mobilenet0.5", "mobilenet0.75", "mobilenet1.0", "mobilenetv2_1.0"]


def shapes_of(net):
    return {name: p.shape for name, p in net._collect_params_with_prefix().items()}


def same_but_unknown(shape, expected):
    """Equal where GluonCV knows the size before a first batch: 0 is unknown there."""
    return len(shape) == len(expected) and all(b in (0, a) for a, b in zip(shape, expected))


@pytest.mark.parametrize("name", [n for n in zoo.zoo_names() if "0.25" not in n and "lite" not in n])
def test_network_is_the_zoos(name):
    """mobilenet0.25 at 300 px and the lite SSD are other designs: only load_zoo_detector has them."""
    _, size, rest = name.split("_", 2)
    backbone, dataset = rest.rsplit("_", 1)
    classes = {"voc": VOCDetection, "coco": COCODetection}[dataset].CLASSES
    net, expected = zoo.build(backbone, int(size), classes), get_model(name, pretrained_base=False)
    ours, theirs = net._collect_params_with_prefix(), expected._collect_params_with_prefix()
    assert ours.keys() == theirs.keys()
    for key, parameter in theirs.items():
        shape = parameter.shape or (0,) * len(ours[key].shape)
        assert same_but_unknown(ours[key].shape, shape), key
        if key.startswith("anchor_generators"):
            np.testing.assert_array_equal(ours[key].data().asnumpy(), parameter.value.asnumpy())


@pytest.mark.parametrize("backbone, size", [("mobilenet0.5", 300), ("mobilenetv2_1.0", 400), ("resnet18_v1", 256)])
def test_anchors_of_other_sizes_are_scaled_and_span_the_image(backbone, size):
    extractor, head = split(zoo.build(backbone, size, CLASSES))
    anchors = head.anchors(extractor.sizes)
    first = extractor.sizes[0]
    assert anchors[0, 2] == pytest.approx(51.2 * size / 512)
    assert anchors[:, :2].min() == pytest.approx(size / first / 2)
    assert anchors[:, :2].max() == pytest.approx(size - size / first / 2)
    per_cell = [4, 6, 6, 6, 4, 4]
    assert len(anchors) == sum(n * side**2 for n, side in zip(per_cell, extractor.sizes))


def test_anchors_of_small_inputs_are_wide_enough_to_meet_objects():
    """Squares of 0.2 to 0.45 of the image's side: in proportion to 512 px, 40% of them met an IoU of 0.5 at 128 px."""
    extractor, head = split(zoo.build("mobilenet0.25", 128, CLASSES))
    anchors = head.anchors(extractor.sizes)
    assert anchors[0, 2] == pytest.approx(1.6 * 16)
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.2, 0.45, (1000, 1)) * [[128, 128]]
    centres = sides / 2 + rng.random((1000, 2)) * (128 - sides)
    gap = np.abs(centres[:, None] - anchors[:, :2]) - (sides[:, None] + anchors[:, 2:]) / 2
    overlap = np.minimum(np.clip(-gap, 0, None), np.minimum(sides[:, None], anchors[:, 2:])).prod(2)
    iou = overlap / (sides.prod(1)[:, None] + anchors[:, 2:].prod(1) - overlap)
    assert (iou.max(1) >= 0.5).mean() > 0.75


def test_why_the_zoos_mobilenet_025_is_not_what_build_gives():
    extractor, head = split(initialised("ssd_300_mobilenet0.25_voc"))
    assert extractor.sizes[0] == 19
    assert head.anchors(extractor.sizes)[: 19 * 19 * 4, :2].max() == 148  # of 300


def initialised(name):
    net = get_model(name, pretrained=False, pretrained_base=False)
    net.initialize()
    return net


def test_a_seed_fixes_every_first_weight():
    def build(seed):
        mx.random.seed(seed)
        net = zoo.build("mobilenet0.25", 128, CLASSES)
        return [p.data().asnumpy() for p in net.collect_params().values()]

    first, second, other = build(1), build(1), build(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, second))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other))


def test_first_weights_keep_activations_in_range():
    mx.random.seed(0)
    net = zoo.build("mobilenet0.25", 128, CLASSES)
    parameters = net.collect_params()
    for name, parameter in parameters.items():
        if name.endswith(("gamma", "var")):
            assert (parameter.data() == 1).asnumpy().all(), name
        if name.endswith(("beta", "mean", "bias")):
            assert (parameter.data() == 0).asnumpy().all(), name
    for m in split(net)[0](mx.nd.random.normal(shape=(2, 3, 128, 128))):
        assert 0.001 < m.asnumpy().std() < 50


def test_two_networks_of_one_backbone_share_no_name_and_save_the_same_names():
    first, second = (zoo.build("mobilenet0.25", 128, CLASSES) for _ in range(2))
    assert not set(first.collect_params()) & set(second.collect_params())
    assert shapes_of(first) == shapes_of(second)
    assert zoo.build("mobilenet0.25", 128, CLASSES, prefix="teacher_").prefix == "teacher_"


@pytest.mark.parametrize("backbone", LOCAL)
def test_local_backbone_gives_gluoncvs_maps(shared, backbone):
    path = shared / "weights" / f"{backbone}.params"
    source = get_model(backbone, pretrained=False)
    source.load_parameters(str(path), allow_missing=True)
    source.output.initialize()
    maps = split(zoo.build(backbone, 96, CLASSES, str(path)))[0]
    x = mx.nd.random.normal(shape=(1, 3, 96, 96))
    expected = FeatureExtractor(source, zoo._TAPS[backbone])(x)
    for ours, theirs in zip(maps(x), expected):
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())
        assert theirs.asnumpy().std() > 0


def equal(first, second):
    return np.array_equal(first.data().asnumpy(), second.data().asnumpy())


def test_names_from_before_mxnet_13_load(shared, tmp_path):
    source = get_model("mobilenet0.25", pretrained=False)
    source.load_parameters(str(shared / "weights" / "mobilenet0.25.params"), allow_missing=True)
    path = str(tmp_path / "old.params")
    mx.nd.save(path, {name[len(source.prefix) :]: p.data() for name, p in source.features.collect_params().items()})
    net = zoo.build("mobilenet0.25", 96, CLASSES, path, prefix="x_")
    assert equal(net.collect_params()["x_mobilenet0_conv26_weight"], source.features[78].weight)


def test_resnet34_takes_the_layers_of_its_backbone(tmp_path):
    source = get_model("resnet34_v1b", pretrained=False)
    source.initialize()
    source(mx.nd.zeros((1, 3, 64, 64)))
    mx.nd.waitall()  # a pass without training lays weights out anew while it runs
    source.save_parameters(str(tmp_path / "resnet34.params"))
    features = zoo.build("resnet34_v1b", 300, CLASSES, str(tmp_path / "resnet34.params")).features
    assert equal(features.stage1[0].weight, source.conv1.weight)
    assert equal(features.stage2[1][2].conv2.weight, source.layer4[2].conv2.weight)


def test_vgg16_keeps_its_own_start_for_what_ssd_adds(tmp_path):
    donor = zoo.build("vgg16_atrous", 300, CLASSES).features
    named = donor._collect_params_with_prefix()
    path = str(tmp_path / "vgg.params")
    mx.nd.save(path, {name: p.data() for name, p in named.items() if name.startswith("stages")})
    features = zoo.build("vgg16_atrous", 300, CLASSES, path).features
    assert equal(features.stages[5][2].weight, donor.stages[5][2].weight)
    assert not equal(features.extras[0][0].weight, donor.extras[0][0].weight)
    assert (features.norm4.scale.data() == 20).asnumpy().all()


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda path: None, "no such file; it should hold the weights of the backbone mobilenet0.5"),
        (lambda path: path.write_bytes(b"not weights"), "or not a .params file .* the backbone mobilenet0.5"),
        (
            lambda path: mx.nd.save(str(path), {"features.0.weight": mx.nd.zeros((16, 3, 3, 3))}),
            "does not hold the weights of the backbone mobilenet0.5: 134 of its 135 arrays are missing",
        ),
    ],
)
def test_wrong_backbone_files(tmp_path, make, sentence):
    path = tmp_path / "backbone.params"
    make(path)
    with pytest.raises(UsageError, match=sentence) as caught:
        zoo.build("mobilenet0.5", 96, CLASSES, str(path))
    assert str(path) in str(caught.value)


def test_weights_of_another_backbone(shared):
    path = str(shared / "weights" / "mobilenet1.0.params")
    with pytest.raises(UsageError, match=r"'features.0.weight' .* \(32, .* there and \(16, .* here$"):
        zoo.build("mobilenet0.5", 96, CLASSES, path)


@pytest.mark.parametrize(
    "backbone, size, sentence",
    [
        ("mobilenet_0.25", 128, "unknown backbone 'mobilenet_0.25'; did you mean 'mobilenet0.25'?"),
        ("zzz", 128, "unknown backbone 'zzz'; it is one of darknet53, .*mobilenet0.25, .*vgg16_atrous"),
        ("mobilenet1.0", 63, "mobilenet1.0 takes an input of 64 to 1024 px, not 63"),
        ("mobilenet1.0", 1025, "64 to 1024 px, not 1025"),
        ("vgg16_atrous", 400, "vgg16_atrous takes an input of 300 or 512 px, not 400"),
        ("resnet34_v1b", 512, "resnet34_v1b takes an input of 300 px, not 512"),
    ],
)
def test_wrong_requests(backbone, size, sentence):
    with pytest.raises(UsageError, match=sentence.replace("?", r"\?")):
        zoo.build(backbone, size, CLASSES)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """GluonCV's downloads go to a port where nothing listens, and their folder is empty."""
    monkeypatch.setenv("MXNET_GLUON_REPO", "http://127.0.0.1:9/")
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))


def test_downloads_without_a_network(no_network):
    with pytest.raises(RunError, match=r"weights of mobilenet0.5 cannot be downloaded \(ConnectionError\)"):
        zoo.build("mobilenet0.5", 96, CLASSES, "imagenet")
    with pytest.raises(RunError, match="weights of ssd_512_resnet50_v1_voc cannot be downloaded"):
        zoo.load_zoo_detector("ssd_512_resnet50_v1_voc")


def test_detectors_that_the_zoo_does_not_have(no_network):
    with pytest.raises(UsageError, match="'ssd_512_resnet50_voc'; did you mean 'ssd_512_resnet50_v1_"):
        zoo.load_zoo_detector("ssd_512_resnet50_voc")
    with pytest.raises(UsageError, match="publishes no weights of ssd_512_resnet18_v1_voc; name a local"):
        zoo.load_zoo_detector("ssd_512_resnet18_v1_voc")


def test_a_detector_of_the_zoo_loads_as_gluoncv_saved_it(monkeypatch, tmp_path):
    """The zoo's folder holds a file under the name and the hash that GluonCV looks for."""
    donor = initialised("ssd_300_mobilenet0.25_voc")
    donor(mx.nd.zeros((1, 3, 300, 300)))
    mx.nd.waitall()
    path = tmp_path / "detector.params"
    donor.save_parameters(str(path))
    sha1 = hashlib.sha1(path.read_bytes()).hexdigest()
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    monkeypatch.setitem(model_store._model_sha1, "ssd_300_mobilenet0.25_voc", sha1)
    (tmp_path / "models").mkdir()
    path.rename(tmp_path / "models" / f"ssd_300_mobilenet0.25_voc-{sha1[:8]}.params")
    net = zoo.load_zoo_detector("ssd_300_mobilenet0.25_voc")
    named = donor._collect_params_with_prefix()
    assert all(equal(p, named[name]) for name, p in net._collect_params_with_prefix().items())
