"""Saved detectors: the same network comes back, and every wrong file is one sentence."""

from __future__ import annotations

import dataclasses
import json
import resource
import signal

import mxnet as mx
import numpy as np
import pytest

from gan_kd.detectors.saved import known_sha256, load_detector, save_detector, teacher_of
from gan_kd.detectors.ssd import zoo
from gan_kd.errors import RunError, UsageError
from gan_kd.recipe import Eval, from_dict, recipe_hash
from gan_kd.system.files import sha256
from tests.rig import build_detector

SIZE = 128
CLASSES = ["circle", "square"]


def recipe(**student):
    return from_dict(
        {
            "name": "small",
            "data": {"dataset": "folder", "root": "nowhere", "classes": CLASSES, "size": SIZE},
            "teacher": {"backbone": "mobilenet0.5", "init": "random"},
            "student": {"backbone": "mobilenet0.25", "init": "random", **student},
            "stages": {"plain": {"trains": "baseline", "epochs": 1}},
        }
    )


def meta(network):
    backbone = "mobilenet0.5" if network == "teacher" else "mobilenet0.25"
    with_head = network == "distilled"
    return {
        "network": network,
        "detector": "ssd",
        "backbone": backbone,
        "size": SIZE,
        "classes": CLASSES,
        "head": "teacher" if with_head else "own",
        "head_backbone": "mobilenet0.5" if with_head else backbone,
        "taps": ["relu22_fwd", "relu26_fwd"],
        "head_taps": ["relu22_fwd", "relu26_fwd"],
        "adapters": with_head,
        "adapter": "linear",
        "map": 12.5,
    }


@pytest.fixture(scope="module")
def detectors():
    """One detector of each kind, with random weights."""
    mx.random.seed(0)
    return {
        "teacher": build_detector("mobilenet0.5", SIZE, CLASSES),
        "baseline": build_detector("mobilenet0.25", SIZE, CLASSES),
        "distilled": build_detector("mobilenet0.25", SIZE, CLASSES, head_backbone="mobilenet0.5"),
    }


@pytest.fixture
def saved(detectors, tmp_path):
    """The baseline on disk."""
    path = tmp_path / "best.params"
    save_detector(detectors["baseline"], path, meta("baseline"))
    return path


def undescribe(path):
    """Leave the arrays alone, as GluonCV writes them."""
    mx.nd.save(str(path), mx.nd.load(str(path)))


def detections(detector):
    images = mx.nd.array(np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE)))
    return np.concatenate([part.asnumpy() for part in detector(images)], axis=2)


@pytest.mark.parametrize("network", ["teacher", "baseline", "distilled"])
@pytest.mark.parametrize("described", ["beside", "inside", "nowhere"])
def test_what_was_saved_comes_back(detectors, tmp_path, network, described):
    path = tmp_path / "run" / "best.params"
    save_detector(detectors[network], path, meta(network))
    sidecar = path.with_suffix(".json")
    expected = json.loads(sidecar.read_text())
    if described != "beside":
        sidecar.unlink()
    if described == "nowhere":
        undescribe(path)
        del expected["map"]
        expected.update(sha256=sha256(path), tried=True)
    loaded, found = load_detector(path, recipe())
    np.testing.assert_array_equal(detections(loaded), detections(detectors[network]))
    assert found == expected
    assert sorted(file.name for file in path.parent.iterdir()) == (
        ["best.json", "best.params"] if described == "beside" else ["best.params"]
    )


TAUGHT = {"backbone": "mobilenet0.75", "sha256": "abc"}


@pytest.mark.parametrize(
    "network, keys, teacher",
    [
        ("distilled", {"teacher": TAUGHT}, TAUGHT),
        ("distilled", {"teacher": TAUGHT, "head": "own"}, TAUGHT),
        ("distilled", {}, {"backbone": "mobilenet0.5", "sha256": None}),  # whose head it has
        ("distilled", {"head": "own"}, None),
        (
            "distilled",
            {"head": "own", "recipe_hash": recipe_hash(recipe())},
            {"backbone": "mobilenet0.5", "sha256": None},
        ),
        ("distilled", {"tried": True}, None),
        ("control", {"head": "teacher", "head_backbone": "mobilenet0.5"}, {"backbone": "mobilenet0.5", "sha256": None}),
        ("baseline", {}, None),
        ("teacher", {}, None),
    ],
)
def test_who_taught_a_student(network, keys, teacher):
    """By the file's description, those of before it named the teacher as well."""
    assert teacher_of({**meta(network), **keys}, recipe()) == teacher


@pytest.mark.parametrize("teacher", ["resnet50_v1", {"sha256": None}, {"backbone": 3}, {"backbone": "a", "sha256": 1}])
def test_a_teacher_that_is_none_is_refused(detectors, tmp_path, teacher):
    path = tmp_path / "best.params"
    save_detector(detectors["distilled"], path, {**meta("distilled"), "teacher": teacher})
    with pytest.raises(UsageError, match="does not describe a network \\(teacher is "):
        load_detector(path)


def test_the_sha256_of_a_teacher_that_was_saved(saved, tmp_path):
    assert known_sha256(saved) == sha256(saved)
    assert known_sha256(tmp_path / "absent.params") is None


def test_a_described_file_loads_into_gluoncvs_network(detectors, saved):
    net = zoo.build("mobilenet0.25", SIZE, CLASSES)
    net.load_parameters(str(saved))
    np.testing.assert_array_equal(detections(net), detections(detectors["baseline"]))


@pytest.mark.parametrize("alone", [True, False])
def test_suppression_travels_with_the_weights(detectors, tmp_path, alone):
    path = tmp_path / "best.params"
    save_detector(detectors["baseline"], path, {**meta("baseline"), "nms": 0.2, "nms_topk": 30, "post_nms": 7})
    if alone:
        path.with_suffix(".json").unlink()
    last = load_detector(path)[0].decoder.suppression
    assert (last.nms["overlap_thresh"], last.nms["topk"], last.post_nms) == (0.2, 30, 7)


def test_the_kind_of_adapters_comes_back(tmp_path):
    detector = build_detector("mobilenet0.25", SIZE, CLASSES, head_backbone="mobilenet0.5", adapter="relu")
    linear = build_detector("mobilenet0.25", SIZE, CLASSES, head_backbone="mobilenet0.5")
    path = tmp_path / "best.params"
    save_detector(detector, path, {**meta("distilled"), "adapter": "relu"})
    linear.load(path)
    np.testing.assert_array_equal(detections(load_detector(path)[0]), detections(detector))
    assert (detections(linear) != detections(detector)).any()


def test_described_files_need_no_recipe(detectors, saved):
    loaded, found = load_detector(saved)
    np.testing.assert_array_equal(detections(loaded), detections(detectors["baseline"]))
    assert found["map"] == 12.5


def test_suppression_is_the_recipes(saved):
    few = dataclasses.replace(recipe(), eval=Eval(post_nms=7))
    assert detections(load_detector(saved, few)[0]).shape == (2, 7, 6)


@pytest.mark.parametrize("described", ["beside", "inside"])
def test_a_changed_file_is_refused(saved, described):
    if described == "inside":
        saved.with_suffix(".json").unlink()
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content)
    with pytest.raises(UsageError, match="best.params: truncated or changed"):
        load_detector(saved, recipe())


@pytest.mark.parametrize("described", ["beside", "inside", "nowhere"])
def test_a_truncated_file_is_refused(saved, described):
    if described != "beside":
        saved.with_suffix(".json").unlink()
    if described == "nowhere":
        undescribe(saved)
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(UsageError, match="best.params.* truncated"):
        load_detector(saved, recipe())


@pytest.mark.parametrize(
    "content, message",
    [(b"", "not a params file"), (b"some text", "not a params file"), (b"\x12\x01" + bytes(6), "truncated")],
)
def test_a_foreign_file_is_refused(tmp_path, content, message):
    path = tmp_path / "some.params"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"some.params.* {message}"):
        load_detector(path, recipe())


@pytest.mark.parametrize("classes", [["circle"], ["square", "circle"]])
def test_other_classes_than_the_datas_are_refused(saved, classes):
    words = f"best.params was trained on the classes circle, square, but the data has {', '.join(classes)}:"
    with pytest.raises(UsageError, match=words):
        load_detector(saved, recipe(), classes)
    assert load_detector(saved, recipe(), CLASSES)


def test_a_network_of_another_recipe_is_refused(detectors, saved, tmp_path):
    with pytest.raises(UsageError, match="another network, mobilenet0.25; recipe small has .* mobilenet0.75"):
        load_detector(saved, recipe(backbone="mobilenet0.75"))
    saved.with_suffix(".json").unlink()
    undescribe(saved)
    with pytest.raises(UsageError, match="not hold the weights of .*, the nearest network of recipe small"):
        load_detector(saved, recipe(backbone="mobilenet0.75"))


def test_another_input_size_is_refused(detectors, tmp_path):
    path = tmp_path / "best.params"
    save_detector(detectors["baseline"], path, {**meta("baseline"), "size": 256})
    with pytest.raises(UsageError, match="trained at 256 px.*--set data.size=256"):
        load_detector(path, recipe())


def test_a_file_that_says_nothing_needs_a_recipe(saved):
    saved.with_suffix(".json").unlink()
    undescribe(saved)
    with pytest.raises(UsageError, match="nothing says which network"):
        load_detector(saved)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="absent.params: no such file"):
        load_detector(tmp_path / "absent.params", recipe())


@pytest.mark.parametrize("content, message", [("{", "not JSON"), ("[]", "does not describe"), ("{}", "backbone")])
def test_a_broken_description_is_refused(saved, content, message):
    saved.with_suffix(".json").write_text(content)
    with pytest.raises(UsageError, match=message):
        load_detector(saved, recipe())


def test_gluoncvs_own_file_is_recognised(tmp_path):
    from gluoncv.model_zoo import get_model

    net = get_model("ssd_512_mobilenet1.0_voc", pretrained_base=False)
    net.initialize(mx.init.One())
    net.hybridize()
    images = mx.nd.random.normal(shape=(1, 3, 512, 512))
    net(images)
    mx.nd.waitall()  # a pass without training lays weights out anew while it runs
    for parameter in net.collect_params(".*weight").values():
        parameter.set_data(mx.nd.random.normal(0, 0.05, parameter.shape))
    net.save_parameters(str(tmp_path / "zoo.params"))

    voc = from_dict({"name": "voc", "stages": {"plain": {"trains": "baseline", "epochs": 1}}})
    detector, found = load_detector(tmp_path / "zoo.params", voc)
    assert (found["network"], found["backbone"]) == ("baseline", "mobilenet1.0")
    for ours, theirs in zip(detector(images), net(images)):
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())


def exported(net, folder):
    net.hybridize()
    net(mx.nd.zeros((1, 3, SIZE, SIZE)))
    mx.nd.waitall()
    net.export(str(folder / "old"))
    return folder / "old-0000.params"


def in_half(net, folder):
    net.cast("float16")
    net.save_parameters(str(folder / "old.params"))
    return folder / "old.params"


def collected(net, folder, **options):
    net.collect_params().save(str(folder / "old.params"), **options)
    return folder / "old.params"


WAYS = {
    "export": exported,
    "collect_params().save": collected,
    "save_params": lambda net, folder: collected(net, folder, strip_prefix=net.prefix),
    "float16": in_half,
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_files_that_gluon_saves_in_other_ways(tmp_path, way, reset):
    """Of GluonCV's network, made after others in its process and, if reset, for other classes."""
    net = zoo.build("mobilenet0.25", SIZE, ["a", "b", "c"] if reset else CLASSES)
    if reset:
        net.reset_class(CLASSES)
        net(mx.nd.zeros((1, 3, SIZE, SIZE)))
        mx.nd.waitall()
    detector, found = load_detector(WAYS[way](net, tmp_path), recipe())
    assert found["network"] == "baseline"
    saved = net._collect_params_with_prefix()
    for name, parameter in detector.weights().items():
        if not name.startswith("anchor_generators"):
            np.testing.assert_array_equal(
                parameter.data().asnumpy(), saved[name].data().asnumpy().astype(np.float32), err_msg=name
            )


def test_the_true_cause_of_what_does_not_fit(tmp_path):
    net = zoo.build("mobilenet0.25", SIZE, ["a", "b", "c"])
    with pytest.raises(UsageError, match="3 classes there, 2 here"):
        load_detector(collected(net, tmp_path), recipe())
    mx.nd.save(str(tmp_path / "x.params"), {"arg:net7_conv0_weight": mx.nd.ones(3), "aux:net7_other": mx.nd.ones(3)})
    with pytest.raises(UsageError, match="saved by export, collect_params.* save it by net.save_parameters"):
        load_detector(tmp_path / "x.params", recipe())


@pytest.mark.parametrize("way", WAYS)
def test_backbones_that_gluon_saves_in_other_ways(tmp_path, way):
    from gluoncv.model_zoo import get_model

    classifier = get_model("mobilenet0.25", pretrained=False)
    classifier.initialize(mx.init.Xavier())
    classifier(mx.nd.zeros((1, 3, SIZE, SIZE)))
    mx.nd.waitall()
    net = zoo.build("mobilenet0.25", SIZE, CLASSES, init=WAYS[way](classifier, tmp_path))
    first = next(iter(net.features.collect_params(".*mobilenet0_conv0_weight").values())).data().asnumpy()
    saved = next(iter(classifier.collect_params(".*_conv0_weight").values())).data().asnumpy()
    np.testing.assert_array_equal(first, saved.astype(np.float32))


@pytest.fixture
def small_disk():
    """No file may grow beyond 100 kB, as if the disk were full there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_leaves_the_old_files(detectors, saved, small_disk):
    before = {file: file.read_bytes() for file in saved.parent.iterdir()}
    assert len(before) == 2
    with pytest.raises(RunError, match="cannot (save|write)"):
        save_detector(detectors["teacher"], saved, meta("teacher"))
    assert {file: file.read_bytes() for file in saved.parent.iterdir()} == before


@pytest.mark.parametrize("channels", [True, False], ids=["its channels in the file", "an older file"])
def test_a_student_is_loaded_without_its_teacher(detectors, tmp_path, monkeypatch, channels):
    """The head is built for the levels that the file states; one without them costs the teacher's shapes."""
    path = tmp_path / "best.params"
    about = {**meta("distilled"), **({"head_channels": [256, 512, 512, 512, 256, 256]} if channels else {})}
    save_detector(detectors["distilled"], path, about)
    made = []
    for name in ("build", "assemble"):
        original = getattr(zoo, name)
        monkeypatch.setattr(zoo, name, lambda *a, _f=original, **k: made.append(a[0]) or _f(*a, **k))
    detector, _ = load_detector(path)
    assert ("mobilenet0.5" in made) is not channels and "mobilenet0.25" in made
    np.testing.assert_array_equal(detections(detector), detections(detectors["distilled"]))


@pytest.mark.parametrize("channels", [[256], [256, 512, 512, 512, 256, -1], "many", [256, 512, 512, 512, 256, 1e9]])
def test_channels_that_cannot_be_a_heads_are_refused(detectors, tmp_path, channels):
    path = tmp_path / "best.params"
    save_detector(detectors["distilled"], path, {**meta("distilled"), "head_channels": channels})
    with pytest.raises(UsageError, match=r"does not describe a network .head_channels is"):
        load_detector(path)


def test_a_family_that_is_not_here_is_refused(saved, tmp_path):
    about = {**meta("baseline"), "detector": "yolo9"}
    save_detector(load_detector(saved)[0], tmp_path / "other.params", about)
    with pytest.raises(UsageError, match="does not describe a network .detector is 'yolo9'."):
        load_detector(tmp_path / "other.params")
