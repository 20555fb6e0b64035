"""GluonCV's Faster R-CNN taken apart computes the same, bit for bit, and files go both ways."""

from __future__ import annotations

import dataclasses

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo.rcnn.faster_rcnn.faster_rcnn import FasterRCNN
from gluoncv.nn.bbox import BBoxClipToImage
from mxnet import autograd, nd

from gan_kd.detectors.faster_rcnn import zoo
from gan_kd.detectors.faster_rcnn.loss import FourLosses, sampled
from gan_kd.detectors.faster_rcnn.network import Outputs, join
from gan_kd.detectors.faster_rcnn.settings import anchors_per_cell, of_gluoncv
from gan_kd.detectors.faster_rcnn.targets import RPNTargets, cells_of
from gan_kd.errors import UsageError

from .conftest import CLASSES, DETECTIONS, MOST, SIZE, SIZES, SMALL, truth_of

BOTH = ("align", "pool")


def batch(images, seed=0):
    """Images, truth, RPN labels and offsets, extents."""
    rng = np.random.default_rng(seed)
    truth = truth_of(images, seed)
    targets = [RPNTargets(SMALL.scales, border=8, samples=32)(rows[rows[:, 4] >= 0, :4], SIZE, rng) for rows in truth]
    labels, offsets = (np.stack(parts) for parts in zip(*targets))
    arrays = (rng.standard_normal((images, 3, *SIZE)), truth, labels.reshape(images, -1))
    extents = np.tile(np.array(SIZE, np.float32), (images, 1))
    return [nd.array(x) for x in (*arrays, offsets.reshape(images, -1, 4), extents)]


def draws_of(seed, images):
    """What GluonCV's sampler draws after this seed."""
    mx.random.seed(seed)
    return nd.stack(*[nd.random.uniform(0, 1, shape=(SMALL.train_proposals + MOST,)) for _ in range(images)])


def gluoncv_losses(outputs, labels, offsets):
    """The four losses of GluonCV's ForwardBackwardTask."""
    huber, cross = mx.gluon.loss.HuberLoss(rho=1 / 9.0), mx.gluon.loss.SoftmaxCrossEntropyLoss()
    sigmoid, huber_one = mx.gluon.loss.SigmoidBinaryCrossEntropyLoss(from_sigmoid=False), mx.gluon.loss.HuberLoss()
    count, rois = (labels >= 0).sum(), (outputs.class_targets >= 0).sum()
    masks = (labels > 0).expand_dims(-1).broadcast_like(offsets)
    size = outputs.rpn_boxes.size
    return [
        sigmoid(outputs.rpn_scores, labels, labels >= 0) * labels.size / count,
        huber(outputs.rpn_boxes, offsets, masks) * size / count,
        cross(outputs.class_scores, outputs.class_targets, outputs.class_targets.expand_dims(-1) >= 0)
        * outputs.class_targets.size
        / rois,
        huber_one(outputs.box_offsets, outputs.box_targets, outputs.box_masks) * outputs.box_offsets.size / rois,
    ]


def whole_outputs(net, image, truth):
    """GluonCV's training outputs, named as ours."""
    found = net(image, truth[:, :, :4], truth[:, :, 4:5])
    class_scores, box_offsets, rois, _, _, scores, boxes, _, class_targets, box_targets, box_masks, _ = found
    return Outputs(
        scores.squeeze(axis=-1), boxes, class_scores, box_offsets, class_targets, box_targets, box_masks, rois
    )


def first_gradient(extractor):
    return extractor.features[0].weight.grad().asnumpy().copy()


@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize("roi", BOTH)
@pytest.mark.parametrize("images", [1, 2])
def test_outputs_losses_and_gradients_are_those_of_the_whole_network(small, roi, images, hybridized):
    net, extractor, head = small(dataclasses.replace(SMALL, roi=roi), images)
    net.target_generator  # noqa: B018  (GluonCV makes it at its first use)
    image, truth, labels, offsets, extents = batch(images)
    if hybridized:
        net.hybridize(static_alloc=True)
    mx.random.seed(5)
    with autograd.record():
        expected = whole_outputs(net, image, truth)
        expected_losses = gluoncv_losses(expected, labels, offsets)
        total = mx.nd.add_n(*[loss.sum() for loss in expected_losses])
    total.backward()
    gradient = first_gradient(extractor)
    assert np.abs(gradient).max() > 0

    net.hybridize(active=False)
    if hybridized:
        extractor.hybridize(static_alloc=True)
        head.hybridize(static_alloc=True)
    draws = draws_of(5, images)
    with autograd.record():
        outputs = Outputs(*head(*extractor(image), extents, truth, draws))
        losses = gluoncv_losses(outputs, labels, offsets)
        total = mx.nd.add_n(*[loss.sum() for loss in losses])
    total.backward()
    for name, ours, theirs in zip(Outputs._fields, outputs, expected):
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy(), err_msg=name)
    for ours, theirs in zip(losses, expected_losses):
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())
        assert theirs.sum().asscalar() > 0
    np.testing.assert_array_equal(first_gradient(extractor), gradient)
    positives = (outputs.class_targets > 0).sum().asscalar()
    assert 0 < positives < outputs.class_targets.size and outputs.box_masks.sum().asscalar() > 0


@pytest.mark.parametrize("images", [1, 2])
def test_losses_are_gluoncvs_divided_by_its_images(small, images):
    _, extractor, head = small()
    image, truth, labels, offsets, extents = batch(images)
    outputs = Outputs(*head(*extractor(image), extents, truth, draws_of(0, images)))
    expected = [loss.sum().asscalar() / images for loss in gluoncv_losses(outputs, labels, offsets)]
    scales = [1 / sampled(labels), 1 / sampled(outputs.class_targets)]
    losses = FourLosses()(*outputs[:-1], labels, offsets, *scales)
    np.testing.assert_allclose([loss.asscalar() for loss in losses], expected, rtol=1e-5)


def test_a_batch_of_two_is_its_halves(small):
    """So two contexts equal one: counts over the whole batch, draws of each image."""
    _, extractor, head = small()
    image, truth, labels, offsets, extents = batch(2)
    draws = draws_of(3, 2)

    def losses(rows, scales):
        with autograd.record():
            outputs = Outputs(*head(*extractor(image[rows]), extents[rows], truth[rows], draws[rows]))
            scales = scales or [1 / sampled(labels), 1 / sampled(outputs.class_targets)]
            found = FourLosses()(*outputs[:-1], labels[rows], offsets[rows], *scales)
            total = mx.nd.add_n(*found)
        total.backward()
        return np.array([loss.asscalar() for loss in found]), first_gradient(extractor), scales

    together, gradient, scales = losses(slice(0, 2), None)
    first, second = losses(slice(0, 1), scales), losses(slice(1, 2), scales)
    np.testing.assert_allclose(first[0] + second[0], together, rtol=1e-5)
    np.testing.assert_allclose(first[1] + second[1], gradient, rtol=1e-3, atol=1e-5 * np.abs(gradient).max())


def test_padding_changes_no_proposal_of_an_image(small):
    """A padded image counts as large as it is: proposals end at its own border and none lies outside."""
    _, extractor, head = small()
    image, truth, *_, extents = batch(1)
    padded = nd.concat(image, nd.zeros((1, 3, SIZE[0], 48)), dim=3)
    outputs = Outputs(*head(*extractor(padded), extents, truth, draws_of(0, 1)))
    rois = outputs.rois.asnumpy()
    assert rois[..., 2].max() <= SIZE[1] and rois[..., 3].max() <= SIZE[0]
    height, width = cells_of((SIZE[0], SIZE[1] + 48))
    assert outputs.rpn_scores.shape == (1, height * width * anchors_per_cell(SMALL))


def test_an_image_without_objects_trains_the_classes_alone(small):
    _, extractor, head = small()
    image, truth, _, _, extents = batch(1)
    truth[:] = -1
    labels, offsets = RPNTargets(SMALL.scales, samples=32)(np.zeros((0, 4)), SIZE, np.random.default_rng(0))
    outputs = Outputs(*head(*extractor(image), extents, truth, draws_of(0, 1)))
    assert (outputs.class_targets.asnumpy() <= 0).all()
    arrays = nd.array(labels.reshape(1, -1)), nd.array(offsets.reshape(1, -1, 4))
    scales = 1 / sampled(arrays[0]), 1 / sampled(outputs.class_targets)
    rpn_conf, rpn_loc, conf, loc = [x.asscalar() for x in FourLosses()(*outputs[:-1], *arrays, *scales)]
    assert rpn_conf > 0 and conf > 0 and rpn_loc == 0 and loc == 0


def test_a_map_with_fewer_anchors_than_proposals_trains_and_detects(small):
    """GluonCV's network raises there."""
    _, extractor, head = small(dataclasses.replace(SMALL, train_proposals=300, test_proposals=300))
    image, truth, *_ = batch(1)
    image = image[:, :, :32, :32]  # 36 anchors
    extents = nd.array([[32, 32]])
    draws = nd.random.uniform(shape=(1, 300 + MOST))
    outputs = Outputs(*head(*extractor(image), extents, truth, draws))
    targets = outputs.class_targets.asnumpy()
    assert (targets >= 0).any() and np.isfinite(outputs.class_scores.asnumpy()).all()
    ids, scores, boxes = [x.asnumpy() for x in join(extractor, head, SIZES)(image)]
    found = scores[..., 0] > 0
    assert found.any() and boxes[found].max() <= 32
    assert (boxes[~found] == -1).all() and (ids[~found] == -1).all()
    # Where a proposal does not exist GluonCV sees a box at the corner of the image.
    sides = boxes[found][:, 2:] - boxes[found][:, :2]
    assert (sides.min(axis=1) > 1).all()


@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize("roi", BOTH)
def test_detections_are_gluoncvs_best(small, roi, hybridized):
    net, extractor, head = small(dataclasses.replace(SMALL, roi=roi))
    image, *_ = batch(1)
    ids, scores, boxes = net(image)
    boxes = BBoxClipToImage()(boxes, image).asnumpy()
    order = np.argsort(-scores.asnumpy()[0, :, 0], kind="stable")[:DETECTIONS]
    detector = join(extractor, head, SIZES, post_nms=DETECTIONS)
    if hybridized:
        detector.hybridize(static_alloc=True)
    found = [x.asnumpy()[0] for x in detector(image)]
    count = int((found[1] > 0).sum())
    assert count >= 10
    for ours, theirs in zip(found, (ids.asnumpy(), scores.asnumpy(), boxes)):
        assert ours.shape[0] == DETECTIONS
        np.testing.assert_array_equal(ours[:count], theirs[0][order][:count])


def test_head_and_detector_serve_training_and_evaluation_in_turn(small):
    _, extractor, head = small()
    image, truth, *_, extents = batch(2)
    detector = join(extractor, head, SIZES)
    for block in (extractor, head, detector):
        block.hybridize(static_alloc=True)
    before = [x.asnumpy() for x in detector(image[:1])]
    with autograd.record():
        outputs = Outputs(*head(*extractor(image), extents, truth, draws_of(0, 2)))
        loss = (outputs.class_scores**2).mean() + (outputs.rpn_scores**2).mean()
    loss.backward()
    head.class_predictor.weight.set_data(head.class_predictor.weight.data() * 0.5)
    assert not np.array_equal(detector(image[:1])[1].asnumpy(), before[1])


def test_running_statistics_do_not_move():
    extractor, head = zoo.build("mobilenet0.25", CLASSES, SMALL)
    image, truth, *_, extents = batch(1)
    names = [n for n in (*extractor.collect_params(), *head.collect_params()) if "running" in n]
    parameters = {**extractor.collect_params(), **head.collect_params()}
    before = {name: parameters[name].data().asnumpy() for name in names}
    with autograd.record():
        outputs = Outputs(*head(*extractor(image), extents, truth, draws_of(0, 1)))
        loss = outputs.class_scores.sum()
    loss.backward()
    assert names and all(np.array_equal(parameters[name].data().asnumpy(), before[name]) for name in names)


def test_files_go_both_ways(small, tmp_path):
    net, extractor, head = small()
    image, *_ = batch(1)
    detector = join(extractor, head, SIZES)
    detector.save(tmp_path / "ours.params")
    layers = zoo.cut("mobilenet0.25")
    other = FasterRCNN(layers.features, layers.top, CLASSES, **of_gluoncv(SMALL))
    other.load_parameters(str(tmp_path / "ours.params"))
    np.testing.assert_array_equal(other(image)[1].asnumpy(), net(image)[1].asnumpy())
    # GluonCV's own file, written after training, has constants of its targets too.
    net.target_generator.collect_params()
    net.save_parameters(str(tmp_path / "theirs.params"))
    assert any(name.startswith("_target_generator.") for name in nd.load(str(tmp_path / "theirs.params")))
    fresh = join(*zoo.build("mobilenet0.25", CLASSES, SMALL), SIZES)
    fresh.load(tmp_path / "theirs.params")
    np.testing.assert_array_equal(fresh(image)[1].asnumpy(), detector(image)[1].asnumpy())
    with pytest.raises(UsageError, match="anchors"):
        join(*zoo.build("mobilenet0.25", CLASSES, dataclasses.replace(SMALL, scales=(1, 2, 8))), SIZES).load(
            tmp_path / "theirs.params"
        )
