"""Faster R-CNN through the engine: its files, two contexts, a run of its stages, what is refused."""

from __future__ import annotations

import contextlib
import json
import re
import shutil

import cv2
import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.__main__ import main
from gan_kd.data import demo
from gan_kd.data.check import preflight
from gan_kd.data.dataset import open_split
from gan_kd.data.loader import Loader
from gan_kd.detection.run import detect
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.base import Parts
from gan_kd.detectors.faster_rcnn import family
from gan_kd.detectors.saved import describe, load_detector, save_detector
from gan_kd.errors import UsageError
from gan_kd.evaluation.evaluate import detect_rows
from gan_kd.export import mxnet as exported
from gan_kd.export.run import export
from gan_kd.recipe import load
from gan_kd.system.stop import StopSignal
from gan_kd.training import estimate
from gan_kd.training.networks import assemble
from gan_kd.training.prepare import Prepared, prepare
from gan_kd.training.run import _Run, train
from tests.rig import build_detector
from tests.training import test_resume as resume

ONE, BOTH = [mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]
SMALL = [
    "faster_rcnn={scales: [1, 2, 4], border: null, roi_size: 3, rpn_channels: 16, rpn_samples: 32, min_size: 4,"
    " train_proposals: 40, test_proposals: 30, samples: 16, frozen: statistics}",
    "data={dataset: demo, train: [train], val: [test], classes: annotations, size: 64, demo: {train: 8, test: 5}}",
    "teacher={backbone: mobilenet0.5, init: random, min_map: 0}",
    "student={backbone: mobilenet0.25, init: random}",
    "train={batch_size: 2, num_workers: 0, val_interval: 9}",
    "eval={batch_size: 2, post_nms: 20}",
    "distill.gan.norm=none",
]
#: What is trained of a student on a lent head: D alone learns in the first epoch.
TAUGHT = [
    "stages={baseline_finetune: null, finetune: null}",
    "stages.adversarial={epochs: 2, distillers: [gan, cosine_attention, fine_grained]}",
    "distill={head: inherit, fine_grained: {quiet: 0, inclusive: true}, gan: {width: 4, critic_only_epochs: 1}}",
]
ALONE = ["stages={teacher: null, baseline: null}"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "demo"
    demo.draw(folder, 8, 5, 233)
    return folder


def small(root, *overrides):
    return load("faster_rcnn/mini", [*SMALL, f"data.root={root}", *overrides])


def parts(recipe, classes=demo.CLASSES):
    mx.random.seed(0)
    return family.build(recipe, recipe.student, classes)


@pytest.fixture
def batch(root):
    recipe = small(root)
    dataset = open_split(recipe.data, "train")
    transform = family.train_transform(recipe, parts(recipe))
    with Loader(dataset, transform, 3, 0, 0, train=True) as loader:
        return next(iter(loader.epoch(0)))


def shares_of(batch, contexts, made):
    """Losses, summed over devices, and the gradient of the first convolution, by the family's loss."""
    loss = family.detection_loss(None)
    made.extractor.collect_params().reset_ctx(contexts)
    made.head.collect_params().reset_ctx(contexts)
    prepared = loss.prepare(batch, contexts)
    images = [mx.nd.array(x, ctx=c) for x, c in zip(np.array_split(batch.images, len(contexts)), contexts)]
    with autograd.record():
        found = loss.shares(made.head, [made.extractor(x) for x in images], prepared)
        totals = [mx.nd.add_n(*each) for each in zip(*found.losses.values())]
    autograd.backward(totals)
    losses = {name: sum(float(part.asscalar()) for part in each) for name, each in found.losses.items()}
    return losses, sum(g.asnumpy() for g in made.extractor.features[0].weight.list_grad())


def test_two_contexts_are_one(batch, root):
    """Three images: two on the one, one on the other; the same regions are drawn, and counts are the whole batch's."""
    made = parts(small(root))
    for block in (made.extractor, made.head):
        block.hybridize(static_alloc=True)
    (one, gradient), (two, other) = (shares_of(batch, contexts, made) for contexts in (ONE, BOTH))
    assert set(one) == {"rpn_conf", "rpn_loc", "conf", "loc"} and all(value > 0 for value in one.values())
    assert two == pytest.approx(one, rel=1e-4)
    np.testing.assert_allclose(other, gradient, rtol=1e-3, atol=1e-4 * np.abs(gradient).max())


@pytest.mark.parametrize("head", ["own", "inherit"])
def test_a_file_brings_its_network_back(head, root, tmp_path):
    recipe = small(root, f"distill.head={head}")
    made, teacher = parts(recipe), family.build(recipe, recipe.teacher, demo.CLASSES)
    adapters = None
    if head == "inherit":
        made = made._replace(head=family.lend(teacher.head, True))
        adapters = Adapters(made.extractor.channels, teacher.extractor.channels)
        adapters.initialize()
    detector = family.join(made, adapters, recipe.eval)
    save_detector(detector, tmp_path / "best.params", describe(recipe, "distilled", detector))
    found, about = load_detector(tmp_path / "best.params", recipe)
    assert about["detector"] == "faster_rcnn"
    x = mx.nd.random.normal(shape=(1, 3, 64, 80))
    for one, other in zip(detector(x), found(x)):
        np.testing.assert_array_equal(one.asnumpy(), other.asnumpy())

    changed = json.loads((tmp_path / "best.json").read_text())
    changed["faster_rcnn"]["roi"] = "crop"
    (tmp_path / "best.json").write_text(json.dumps(changed))
    with pytest.raises(UsageError, match="faster_rcnn.roi"):
        load_detector(tmp_path / "best.params", recipe)


def test_images_of_a_batch_are_detected_as_by_themselves(root):
    recipe = small(root)
    detector = family.join(parts(recipe), None, recipe.eval)
    images, extents = mx.nd.random.normal(shape=(3, 3, 64, 96)), mx.nd.array([[64, 96]] * 3)
    together = detect_rows(detector, images, extents).asnumpy()
    assert together.shape == (3, 20, 6) and (together[..., 4] >= 0).any()
    for index in range(3):
        alone = detect_rows(detector, images[index : index + 1], extents[:1]).asnumpy()
        np.testing.assert_allclose(together[index], alone[0], rtol=1e-3, atol=1e-3)


def test_nothing_is_detected_in_the_padding(root):
    recipe = small(root)
    detector = family.join(parts(recipe), None, recipe.eval)
    images = mx.nd.random.normal(shape=(2, 3, 64, 96))
    images[0, :, :, 70:] = 0
    rows = detect_rows(detector, images, mx.nd.array([[64, 70], [64, 96]])).asnumpy()
    assert (rows[0, :, 4] >= 0).any() and rows[0, :, 2].max() <= 70 < rows[1, :, 2].max()


def test_the_files_of_an_export_detect_the_same(root, tmp_path):
    recipe = small(root)
    detector = family.join(parts(recipe), None, recipe.eval)
    exported.save(exported.trace(detector), tmp_path / "net")
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 96)).astype("float32")
    exported.require_equal(tmp_path / "net", detector, images)
    assert family.FORMS == ("mxnet",)


@pytest.fixture(scope="module")
def ran(root, tmp_path_factory):
    """The folder of a run of teacher, baseline and a student that learns from three distillers on the lent head."""
    recipe = small(root, *TAUGHT, "stages={teacher: {epochs: 1}, baseline: {epochs: 1}}")
    return train(recipe, tmp_path_factory.mktemp("runs"), False, StopSignal()).parents[1]


def of_kind(ran, kind):
    lines = [json.loads(line) for line in (ran / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind and line["trains"] == "distilled"]


def test_the_stages_of_a_small_run(ran):
    for network in ("teacher", "baseline", "distilled"):
        assert (ran / network / "best.params").is_file()
    losses = [line["losses"] for line in of_kind(ran, "train")]
    assert losses[0]["adversarial"] == 0 and losses[-1]["adversarial"] != 0 and losses[0]["critic"] != 0
    assert all(each["fine_grained"] > 0 for each in losses)
    assert all(np.isfinite(list(each.values())).all() for each in losses)


def test_the_report_of_a_small_run(ran):
    found = of_kind(ran, "diagnosis")[-1]
    for name in ("detection", "adversarial", "cosine_attention", "fine_grained"):
        (norm,) = found[f"gradient_{name}"]
        assert norm > 0, name
    assert "Faster R-CNN" in (ran / "report" / "report.html").read_text()
    for picture in ("detections.jpg", "attention.jpg", "distillation.png", "losses.png"):
        assert (ran / "report" / picture).is_file(), picture


def test_the_student_of_a_small_run_is_exported_and_detects(ran, root, tmp_path):
    params = ran / "distilled" / "best.params"
    record = export(params, tmp_path / "exported", ["mxnet"], rounds=1)
    assert record["name"] == "faster_rcnn_64_mobilenet0.25" and (tmp_path / "exported" / "export.md").is_file()
    (picture, *_) = sorted((root / "JPEGImages").iterdir())
    detect(params, picture, tmp_path / "detected", threshold=0.01)
    assert (tmp_path / "detected" / picture.name).is_file()
    for form, why in (("onnx", "enter suppression"), ("int8", "the choice of regions stands between")):
        with pytest.raises(UsageError, match=f"cannot be written as {form} .*{why}.*; it is written as mxnet") as error:
            export(params, tmp_path / "refused", ["mxnet", form])
        assert "\n" not in str(error.value) and not (tmp_path / "refused").exists()


def taught(root, ran, *overrides):
    return small(root, *TAUGHT, *ALONE, f"teacher.weights={ran / 'teacher' / 'best.params'}", *overrides)


def test_head_inheritance_alone(root, ran, tmp_path):
    """No distiller says which maps are compared."""
    recipe = taught(root, ran, "stages.adversarial={trains: inherit, epochs: 1, distillers: []}")
    data = preflight(recipe.data)
    assert not resume.run(recipe, tmp_path / "run", data)
    arrays = resume.results(recipe, tmp_path / "run", data)[2]
    assert any("adapters" in name for name in arrays) and all(np.isfinite(array).all() for array in arrays.values())


def test_a_stopped_run_equals_an_undisturbed_one(root, ran, tmp_path):
    """Within an epoch: what is sampled follows from the seed, the epoch and the image; a loader process makes it."""
    recipe = taught(root, ran, "train.num_workers=1")
    data = preflight(recipe.data)
    assert not resume.run(recipe, tmp_path / "undisturbed", data)
    for places in (2, 4):
        assert resume.run(recipe, tmp_path / "stopped", data, resume.StopAt(places))
    assert not resume.run(recipe, tmp_path / "stopped", data)
    one, other = (resume.results(recipe, tmp_path / name, data) for name in ("undisturbed", "stopped"))
    resume.assert_same(one, other)


def test_two_contexts_learn_as_one(root, ran, tmp_path):
    """The student by three distillers, and D: counts are the whole batch's, draws the image's."""
    recipe = taught(root, ran, "distill.gan={critic_only_epochs: 0, optimizer: {name: sgd, lr: 0.001}}")
    data, found = preflight(recipe.data), []
    for contexts in (ONE, BOTH):
        folder = tmp_path / str(len(contexts))
        folder.mkdir()
        ready = Prepared(contexts, data, {}, "", None, None)
        with StopSignal() as stop, contextlib.closing(_Run(recipe, folder, ready, stop)) as run:
            run.all_stages()
        found.append(resume.results(recipe, folder, data)[2])
    learned = {name: array for name, array in found[0].items() if name.startswith(("detector/", "adversarial/dnet/"))}
    assert {name.partition("/")[0] for name in learned} == {"detector", "adversarial"}
    for name, array in learned.items():
        np.testing.assert_allclose(found[1][name], array, atol=1e-4 * max(1, np.abs(array).max()), err_msg=name)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["faster_rcnn.border=0", "faster_rcnn.scales=[8]"], "no anchor of 128 px or more lies inside of an image of"),
        (["faster_rcnn.train_proposals=300"], "train_proposals 300 is above the 144 anchors of the smallest image"),
        (["train.sync_bn=true"], "leave --syncbn out"),
        (["student.backbone=vgg16"], "student.backbone cannot be vgg16"),
        (["student.backbone=resnet50_fpn"], "student.backbone cannot be resnet50_fpn"),
        (["detector=faster_rcnn_fpn"], "detector cannot be faster_rcnn_fpn (did you mean faster_rcnn?)"),
        (["data.augment=ssd"], "Faster R-CNN mirrors alone"),
        (["teacher.weights=zoo"], "name its .params file"),
        (["student.taps=[a, b]"], "student.taps: a Faster R-CNN has one map"),
        (["stages.adversarial.distillers=[outputs]"], "the distiller outputs"),
        (["faster_rcnn.scales=[]"], "faster_rcnn.scales is empty"),
        (["distill.gan.norm=instance"], "distill.gan.norm instance blinds D where a map has fewer than 8 cells a side"),
    ],
)
def test_what_cannot_be_is_one_sentence(overrides, message, root):
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        small(root, *overrides)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--syncbn"], "train.sync_bn: Faster R-CNN never moves BatchNorm's statistics"),
        (["--set", "student.backbone=resnet50_v1b_fpn"], "student.backbone cannot be resnet50_v1b_fpn"),
        (["--set", "faster_rcnn.train_proposals=4000"], "faster_rcnn.train_proposals 4000 is above the 1728 "),
        (["--set", "faster_rcnn.border=0", "--set", "faster_rcnn.scales=[16]"], "faster_rcnn.border 0: no "),
    ],
)
def test_wrong_use_ends_with_two(words, message, capfd):
    assert main(["train", "--recipe", "faster_rcnn/mini", *words]) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"error: recipe faster_rcnn/mini: {message}") and said.count("\n") == 1


def refusal(recipe, folder):
    """What a run is refused with before it has a folder."""
    with pytest.raises(UsageError) as error:
        prepare(recipe, folder / "run")
    assert error.value.exit_code == 2 and "\n" not in str(error.value) and not (folder / "run").exists()
    return str(error.value)


def test_a_teacher_that_does_not_fit_is_refused(root, ran, tmp_path):
    classes = taught(root, ran, "data={classes: [circle, square], unknown_classes: ignore}")
    assert "was trained on the classes circle, square, star, triangle" in refusal(classes, tmp_path)
    pooling = taught(root, ran, "faster_rcnn.roi=pool")
    assert "distill.head inherit: the head of the teacher (mobilenet0.5) has other anchors or settings" in refusal(
        pooling, tmp_path
    )
    assert prepare(taught(root, ran, "faster_rcnn.roi=pool", "distill.head=own"), tmp_path / "run").teacher is not None

    about = {"network": "teacher", "backbone": "mobilenet0.5", "size": 64, "classes": list(demo.CLASSES), "head": "own"}
    about |= {"head_backbone": "mobilenet0.5", "adapters": False}
    save_detector(build_detector("mobilenet0.5", 64, demo.CLASSES), tmp_path / "ssd.params", about)
    other = taught(root, ran, f"teacher.weights={tmp_path / 'ssd.params'}")
    assert "params file of another network, a detector ssd; recipe faster_rcnn/mini has faster_rcnn" in refusal(
        other, tmp_path
    )


def test_an_image_of_20_to_1_is_refused(root, tmp_path):
    shutil.copytree(root, tmp_path / "images")
    (name, *_) = (root / "ImageSets" / "Main" / "train.txt").read_text().split()
    (annotation,) = (tmp_path / "images").glob(f"Annotations/{name}.xml")
    shape = cv2.imread(str(next((tmp_path / "images" / "JPEGImages").glob(f"{name}.*")))).shape
    text = annotation.read_text()
    for side, given, new in (("width", shape[1], 4000), ("height", shape[0], 200)):
        assert f"<{side}>{given}</{side}>" in text
        text = text.replace(f"<{side}>{given}</{side}>", f"<{side}>{new}</{side}>")
    annotation.write_text(text)
    (picture,) = (tmp_path / "images" / "JPEGImages").glob(f"{name}.*")
    cv2.imwrite(str(picture), np.zeros((200, 4000, 3), np.uint8))
    said = refusal(small(tmp_path / "images", "data.dataset=folder"), tmp_path)
    assert f"{picture} is 4000x200 px, too long to train a faster_rcnn on: it would become 106x5 px" in said


def test_shapes_alone_know_what_they_cost(root):
    recipe = small(root)
    shapes = family.assemble(recipe, recipe.student, demo.CLASSES)
    assert isinstance(shapes, Parts)
    cost = family.cost(shapes)
    assert cost.outputs > 0 and cost.targets > 0


def test_memory_is_estimated_for_every_stage(root):
    recipe = small(root, *TAUGHT)
    stages = estimate.estimates(recipe, assemble(recipe, demo.CLASSES))
    small_batch, large = ({found.stage: found for found in (stage(size) for stage in stages)} for size in (8, 16))
    assert set(large) == {"teacher", "baseline", "adversarial"}
    for name, found in large.items():
        assert found.device["activations"] == pytest.approx(2 * small_batch[name].device["activations"])
    taught, alone = large["adversarial"].device, large["baseline"].device
    assert taught["teacher"] > 0 and taught["critic"] > 0 and taught["activations"] > alone["activations"]
