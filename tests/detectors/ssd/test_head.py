"""Order of predictions, anchors and decoding against NumPy; a copied head is its own."""

import mxnet as mx
import numpy as np
import pytest

from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.head import SSDDecoder, SSDHead, new_head
from gan_kd.detectors.ssd.network import split

CLASSES = ["cat", "dog", "cow"]
SIZES = [8, 4, 2, 1, 1, 1]  # of 128 px
STDS = np.array([0.1, 0.1, 0.2, 0.2])


@pytest.fixture(scope="module")
def head() -> SSDHead:
    mx.random.seed(3)
    return split(zoo.build("mobilenet0.25", 128, CLASSES))[1]


def maps(channels, sizes, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((batch, c, s, s)).astype("float32") for c, s in zip(channels, sizes)]


def convolution(x, weight, bias):
    """3x3, stride 1, pad 1: (N,C,S,S) -> (N,S,S,filters)."""
    side = x.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return bias + sum(
        np.einsum("ncyx,fc->nyxf", padded[:, :, i : i + side, j : j + side], weight[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )


def test_predictions_are_ordered_as_the_anchors(head):
    inputs = maps([128, 256, 512, 512, 256, 256], SIZES)
    cls_preds, box_preds = head(*map(mx.nd.array, inputs))
    for predictions, predictors in ((cls_preds, head.class_predictors), (box_preds, head.box_predictors)):
        rows = [
            convolution(x, p.predictor.weight.data().asnumpy(), p.predictor.bias.data().asnumpy()).reshape(2, -1, 4)
            for x, p in zip(inputs, predictors)
        ]  # 4: the offsets, and 3 classes + 1
        np.testing.assert_allclose(predictions.asnumpy(), np.concatenate(rows, axis=1), rtol=1e-3, atol=1e-4)
    assert len(head.anchors(SIZES)) == cls_preds.shape[1] == box_preds.shape[1]


def test_anchors_follow_the_ssd_paper(head):
    zoo = np.array([51.2, 102.4, 189.4, 276.4, 363.52, 450.6, 492])  # at 512 px
    sizes = np.interp(zoo, [51.2, 492], [1.6 * 16, 492 / 4])  # the smallest 1.6 cells wide, the largest in proportion
    rows = []
    for index, side in enumerate(SIZES):
        small, large = sizes[index], np.sqrt(sizes[index] * sizes[index + 1])
        ratios = [2, 1 / 2, 3, 1 / 3] if 1 <= index <= 3 else [2, 1 / 2]
        boxes = [(small, small), (large, large)] + [(small * r**0.5, small / r**0.5) for r in ratios]
        step = 128 / side
        rows += [((x + 0.5) * step, (y + 0.5) * step, w, h) for y in range(side) for x in range(side) for w, h in boxes]
    anchors = head.anchors(SIZES)
    assert anchors.dtype == np.float32
    np.testing.assert_allclose(anchors, rows, rtol=1e-6)


def test_decoder_on_hand_made_predictions(head):
    """Two anchors see the same cat, one of them better; another sees a dog; the rest is background."""
    anchors = head.anchors(SIZES)
    cls_preds = np.full((1, len(anchors), 4), -10, "float32")
    cls_preds[..., 0] = 10
    cls_preds[0, 380] = [0, 4, 0, 0]
    cls_preds[0, 381] = [0, 3, 0, 0]
    cls_preds[0, 5] = [0, 0, 5, 0]
    box_preds = np.zeros((1, len(anchors), 4), "float32")
    box_preds[0, 5] = [1, -2, 0.5, 0.25]
    cat, dog = anchors[380], anchors[5]
    offset = (anchors[380] - anchors[381]) / np.tile(anchors[381, 2:], 2)
    box_preds[0, 381, :2] = offset[:2] / STDS[:2]
    box_preds[0, 381, 2:] = np.log(cat[2:] / anchors[381, 2:]) / STDS[2:]  # the same box as anchor 380

    decoded = SSDDecoder(head, SIZES)(mx.nd.array(cls_preds), mx.nd.array(box_preds))
    ids, scores, boxes = (y.asnumpy()[0] for y in decoded)

    assert ids.shape == scores.shape == (100, 1) and boxes.shape == (100, 4)
    softmax = [np.exp(5) / (np.exp(5) + 3), np.exp(4) / (np.exp(4) + 3)]
    assert ids[:2, 0].tolist() == [1, 0]
    np.testing.assert_allclose(scores[:2, 0], softmax, rtol=1e-5)
    centre = dog[:2] + np.array([1, -2]) * STDS[:2] * dog[2:]
    half = dog[2:] * np.exp(np.array([0.5, 0.25]) * STDS[2:]) / 2
    np.testing.assert_allclose(boxes[0], [*(centre - half), *(centre + half)], rtol=1e-4)
    np.testing.assert_allclose(boxes[1], [*(cat[:2] - cat[2:] / 2), *(cat[:2] + cat[2:] / 2)], rtol=1e-4)
    leftover = scores[2:, 0]  # the other classes of these anchors, e^0 / (e^4 + 3) and the like
    assert leftover.max() < 0.06 and leftover.min() == -1


def some_predictions(head, images=2):
    """Of 60 anchors an image's logits are whole numbers, so that many scores are equal; the rest is background."""
    rng = np.random.default_rng(4)
    count = len(head.anchors(SIZES))
    cls_preds = np.full((images, count, 4), -10, "float32")
    cls_preds[..., 0] = 10
    for image in cls_preds:
        image[rng.choice(count, 60, replace=False)] = rng.integers(0, 3, (60, 4))
    return cls_preds, rng.normal(0, 1, (images, count, 4)).astype("float32")


def decoded(head, cls_preds, box_preds, **options):
    return [y.asnumpy() for y in SSDDecoder(head, SIZES, **options)(mx.nd.array(cls_preds), mx.nd.array(box_preds))]


def test_taking_candidates_out_first_keeps_the_order_of_equal_scores(head):
    predictions = some_predictions(head)
    some, all_ = decoded(head, *predictions), decoded(head, *predictions, nms_topk=-1)
    assert all(np.array_equal(one, other) for one, other in zip(some, all_))
    assert (some[0][:, 20] >= 0).all()
    assert len(np.unique(some[1][some[1] > 0])) < 20


def test_scores_that_are_not_finite_are_no_detections(head):
    cls_preds, box_preds = some_predictions(head)
    cls_preds[0] = np.nan
    ids, _, _ = decoded(head, cls_preds, box_preds)
    assert (ids[0] == -1).all() and (ids[1, :20] >= 0).all()


def test_new_head_is_equal_and_its_own(head):
    inputs = [mx.nd.array(x) for x in maps([128, 256, 512, 512, 256, 256], SIZES)]
    copy = new_head(head)
    expected = [y.asnumpy() for y in head(*inputs)]
    for y, old in zip(copy(*inputs), expected):
        np.testing.assert_array_equal(y.asnumpy(), old)
    np.testing.assert_array_equal(copy.anchors(SIZES), head.anchors(SIZES))
    for parameter in copy.class_predictors.collect_params().values():
        parameter.set_data(parameter.data() + 1)
    np.testing.assert_array_equal(head(*inputs)[0].asnumpy(), expected[0])
    assert not np.array_equal(copy(*inputs)[0].asnumpy(), expected[0])


def test_gradients_equal_finite_differences(head, check_gradients):
    inputs = maps([128, 256, 512, 512, 256, 256], SIZES, batch=1)
    check_gradients(new_head(head), inputs)
