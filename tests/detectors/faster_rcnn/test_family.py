"""Faster R-CNN through the engine: its files, its loss on two contexts, its stages, what is refused."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

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
from gan_kd.training.run import train
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
]


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


def test_the_stages_of_a_small_run(root, tmp_path, monkeypatch):
    """Teacher, baseline, and on the lent head adversary, cosine attention and fine-grained imitation, all at 64 px."""
    monkeypatch.chdir(tmp_path)
    stages = ["teacher", "baseline", "adversarial"]
    recipe = small(
        root,
        *[f"stages.{name}.epochs={2 if name == 'adversarial' else 1}" for name in stages],
        "stages.baseline_finetune=null",
        "stages.finetune=null",
        "stages.adversarial.distillers=[gan, cosine_attention, fine_grained]",
        "distill.fine_grained={quiet: 0, inclusive: true}",
        "distill.head=inherit",
        "distill.gan={width: 4, critic_only_epochs: 1, norm: none}",  # a norm hides what tells maps of few cells apart,
    )
    folder = train(recipe, tmp_path / "runs", False, StopSignal()).parents[1]
    for network in ("teacher", "baseline", "distilled"):
        assert (folder / network / "best.params").is_file()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["losses"] for line in lines if line["kind"] == "train" and line["trains"] == "distilled"]
    assert losses[0]["adversarial"] == 0 and losses[-1]["adversarial"] != 0 and losses[0]["critic"] != 0
    assert all(each["fine_grained"] > 0 for each in losses)
    assert all(np.isfinite(list(each.values())).all() for each in losses)

    params = folder / "distilled" / "best.params"
    record = export(params, tmp_path / "exported", ["mxnet"], rounds=1)
    assert record["name"] == "faster_rcnn_64_mobilenet0.25" and (tmp_path / "exported" / "export.md").is_file()
    with pytest.raises(UsageError, match="cannot be written as onnx; it is written as mxnet"):
        export(params, tmp_path / "refused", ["mxnet", "onnx"])
    (picture, *_) = sorted((root / "JPEGImages").iterdir())
    detect(params, picture, tmp_path / "detected", threshold=0.01)
    assert (tmp_path / "detected" / picture.name).is_file()


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["faster_rcnn.border=0", "faster_rcnn.scales=[8]"], "no anchor of 128 px or more lies inside of an image of"),
        (["faster_rcnn.train_proposals=300"], "train_proposals 300 is above the 144 anchors of the smallest image"),
        (["train.sync_bn=true"], "leave --syncbn out"),
        (["student.backbone=vgg16"], "student.backbone cannot be vgg16"),
        (["student.backbone=resnet50_fpn"], "student.backbone cannot be resnet50_fpn"),
        (["data.augment=ssd"], "Faster R-CNN mirrors alone"),
        (["teacher.weights=zoo"], "name its .params file"),
        (["student.taps=[a, b]"], "student.taps: a Faster R-CNN has one map"),
        (["stages.adversarial.distillers=[outputs]"], "the distiller outputs"),
        (["faster_rcnn.scales=[]"], "faster_rcnn.scales is empty"),
    ],
)
def test_what_cannot_be_is_one_sentence(overrides, message, root):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")) as error:
        small(root, *overrides)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


def test_shapes_alone_know_what_they_cost(root):
    recipe = small(root)
    shapes = family.assemble(recipe, recipe.student, demo.CLASSES)
    assert isinstance(shapes, Parts)
    cost = family.cost(shapes)
    assert cost.outputs > 0 and cost.targets > 0


@pytest.mark.slow
def test_a_stopped_run_equals_an_undisturbed_one(root, tmp_path):
    """Within an epoch: what is sampled follows from the seed, the epoch and the image; a loader process makes it."""
    alone = [f"stages.{name}=null" for name in ("teacher", "baseline_finetune", "adversarial", "finetune")]
    recipe = small(root, *alone, "stages.baseline.epochs=2", "train.num_workers=1")
    data = preflight(recipe.data)
    assert not resume.run(recipe, tmp_path / "undisturbed", data)
    for batches in (1, 3):
        assert resume.run(recipe, tmp_path / "stopped", data, resume.StopAt(batches))
    assert not resume.run(recipe, tmp_path / "stopped", data)
    one, other = (resume.results(recipe, tmp_path / name, data) for name in ("undisturbed", "stopped"))
    resume.assert_same(one, other)
