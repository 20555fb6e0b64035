"""GFL as the engine uses it: built, trained for a step, saved, restored, lent, and asked for detections."""

from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd

from gan_kd.data.batch import TrainBatch
from gan_kd.data.sizes import Square
from gan_kd.detectors.gfl import family, priors
from gan_kd.detectors.gfl.targets import assign
from gan_kd.errors import UsageError
from gan_kd.recipe import Gfl, load

SIZE, CLASSES = 128, ("cat", "dog")
CPUS = [mx.cpu(0), mx.cpu(1)]


@pytest.fixture(scope="module")
def recipe():
    small = load("mini/gfl")
    return replace(
        small,
        data=replace(small.data, size=SIZE),
        teacher=replace(small.teacher, init="random"),
        student=replace(small.student, init="random"),
        gfl=Gfl(16, 2, 4, 8, freeze=True),  # BatchNorm as in inference: a sample's outputs are its own
    )


@pytest.fixture(scope="module")
def parts(recipe):
    mx.random.seed(0)
    return family.build(recipe, recipe.student, CLASSES)


def batch(objects=((0, 10, 10, 60, 70, 1), (2, 30, 40, 120, 100, 0))):
    """Three images; objects: sample, corners, class."""
    rng = np.random.default_rng(0)
    truth = np.full((3, 2, 5), -1, np.float32)
    for row, (sample, *values) in enumerate(objects):
        truth[sample, row % 2 if truth[sample, 0, 4] >= 0 else 0] = values
    made = priors.make(priors.shapes(SIZE, SIZE))
    found = [assign(made, boxes[boxes[:, 4] >= 0, :4]) for boxes in truth]
    thresholds = np.zeros((3, 2))
    for row, image in enumerate(found):
        thresholds[row, : len(image.thresholds)] = image.thresholds
    images = rng.standard_normal((3, 3, SIZE, SIZE)).astype(np.float32)
    return TrainBatch(images, truth, (np.array([image.objects for image in found], np.int32), thresholds))


def step(recipe, parts, batch, contexts):
    """Losses of the batch by name, and the gradients."""
    for block in (parts.extractor, parts.head):
        block.collect_params().reset_ctx(list(contexts))
        block.collect_params().zero_grad()
    loss = family.detection_loss(recipe)
    prepared = loss.prepare(batch, contexts)
    images = [nd.array(x, ctx=c) for x, c in zip(np.array_split(batch.images, len(contexts)), contexts)]
    with autograd.record():
        maps = [parts.extractor(x) for x in images]
        through = [[every[index] for index in parts.extractor.to_head] for every in maps]
        found = loss.shares(parts.head, through, prepared)
        totals = [nd.add_n(*each) for each in zip(*found.losses.values())]
    autograd.backward(totals)
    losses = {name: sum(part.asscalar() for part in each) for name, each in found.losses.items()}
    gradients = {
        name: sum(gradient.asnumpy() for gradient in parameter.list_grad())
        for name, parameter in parts.head._collect_params_with_prefix().items()
    }
    return losses, gradients, found


def test_levels_are_those_of_the_maps(parts):
    maps = parts.extractor(nd.zeros((1, 3, SIZE, SIZE)))
    assert [level.shape((SIZE, SIZE)) for level in parts.extractor.levels] == [m.shape[1:] for m in maps]
    assert [level.place for level in parts.extractor.levels] == ["backbone"] * 3 + ["neck"] * 5


def test_two_devices_train_as_one(recipe, parts):
    one, two = (step(recipe, parts, batch(), CPUS[:count]) for count in (1, 2))
    assert set(one[0]) == {"qfl", "giou", "dfl"}
    assert all(value > 0 for value in one[0].values())
    assert two[0] == pytest.approx(one[0], rel=1e-5)
    for name, gradient in one[1].items():
        np.testing.assert_allclose(two[1][name], gradient, atol=1e-4 * np.abs(gradient).max())
    objects = np.concatenate([found["share"].objects for found in two[2].assigned])
    np.testing.assert_array_equal(objects, batch().targets[0])


def test_a_batch_without_an_object_trains_its_classes(recipe, parts):
    losses, gradients, _ = step(recipe, parts, batch(()), CPUS[:1])
    assert losses["qfl"] > 0
    assert losses["giou"] == losses["dfl"] == 0
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert np.abs(gradients["class_logits.weight"]).max() > 0
    assert np.abs(gradients["box_logits.weight"]).max() == 0


def test_an_image_may_hold_six_hundred_objects(recipe, parts):
    rng, made = np.random.default_rng(0), priors.make(priors.shapes(SIZE, SIZE))
    corners = rng.uniform(0, SIZE - 40, (600, 2))
    boxes = np.hstack([corners, corners + rng.uniform(3, 40, (600, 2)), rng.integers(0, 2, (600, 1))])
    found = assign(made, boxes[:, :4])
    images = rng.standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
    crowded = TrainBatch(images, boxes[None].astype(np.float32), (found.objects[None], found.thresholds[None]))
    losses, gradients, _ = step(recipe, parts, crowded, CPUS[:1])
    assert (found.objects >= 0).sum() > 150
    assert all(0 < value < np.inf for value in losses.values())
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_a_description_is_enough_to_restore_a_network(recipe, parts, tmp_path):
    about = {
        "backbone": recipe.student.backbone,
        "size": SIZE,
        "classes": CLASSES,
        **family.about(recipe, recipe.student),
    }
    detector = family.join(parts, None, recipe.eval)
    detector.save(tmp_path / "best.params")
    restored = family.join(family.restore(about), None, recipe.eval)
    restored.load(tmp_path / "best.params")
    images = nd.array(batch().images)
    for one, other in zip(detector(images), restored(images)):
        np.testing.assert_array_equal(one.asnumpy(), other.asnumpy())
    head, levels = family.head_for(None, about)
    assert head.settings == parts.head.settings
    assert levels == parts.extractor.levels


def test_detections_are_boxes_in_the_input_best_first(recipe, parts):
    detector = family.join(parts, None, recipe.eval)
    parts.head.class_logits.bias.set_data(nd.array([2.0, -2.0]))
    found = [x.asnumpy() for x in detector(nd.array(batch().images))]
    detector.hybridize()
    for eager, compiled in zip(found, detector(nd.array(batch().images))):
        np.testing.assert_allclose(eager, compiled.asnumpy(), atol=1e-3)
    ids, scores, boxes = found
    assert ids.shape == (3, 100, 1) and boxes.shape == (3, 100, 4)
    assert (ids[:, 0] == 0).all()
    assert (np.diff(scores[:, :, 0]) <= 0).all()
    assert boxes[ids[..., 0] >= 0].min() >= 0 and boxes.max() <= SIZE


def test_inputs_of_many_sizes_are_detected_in_as_one_size_would_be(recipe):
    varying = replace(recipe, gfl=replace(recipe.gfl, short=128, longest=192))
    parts = family.build(varying, varying.student, CLASSES)
    assert parts.sizes.of_batch(np.array([[100, 140]]), (0, 0, 0)) == (128, 192)
    detector = family.join(parts, None, varying.eval)
    square = family.join(parts._replace(sizes=Square(SIZE)), None, varying.eval)
    detector.hybridize()
    images = nd.array(batch().images)
    for one, other in zip(detector(images), square(images)):
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), atol=1e-3)
    wide = nd.array(np.random.default_rng(0).standard_normal((1, 3, 128, 192)))
    assert 128 < detector(wide)[2].asnumpy()[..., 2].max() <= 192
    assert [level.side for level in parts.extractor.levels] == [None] * 8


def test_a_lent_head_is_a_copy(recipe, parts):
    copied, drawn = family.lend(parts.head, True), family.lend(parts.head, False)
    name = "class_tower.0.weight"
    own, *others = (head._collect_params_with_prefix()[name].data() for head in (parts.head, copied, drawn))
    assert (own == others[0]).asnumpy().all()
    assert not (own == others[1]).asnumpy().any()
    copied._collect_params_with_prefix()[name].set_data(nd.zeros(own.shape))
    assert (own != 0).asnumpy().any()


def test_only_equal_bins_are_comparable(recipe, parts):
    assert family.comparable(parts, family.assemble(recipe, recipe.teacher, CLASSES))
    others = replace(recipe, gfl=replace(recipe.gfl, reg_max=16))
    assert not family.comparable(parts, family.assemble(others, recipe.teacher, CLASSES))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("data.size=96", "data.size 96 is below 128 px, the stride of GFL's coarsest level"),
        ("gfl.groups=7", "gfl.width 64 is no multiple of gfl.groups 7"),
        ("gfl={short: 256, longest: 200}", "gfl.longest 200 is below gfl.short 256"),
        ("teacher.weights=zoo", "GluonCV has no GFL"),
        ("student.taps=[a, b]", "student.taps: GFL takes"),
        ("student.backbone=vgg16_atrous", "student.backbone cannot be vgg16_atrous"),
        ("stages.localization.distillers=[outputs]", "stages.localization: the distiller outputs compares a softmax"),
    ],
)
def test_what_cannot_be_is_refused(change, sentence):
    with pytest.raises(UsageError, match=sentence):
        load("mini/gfl", [change])
