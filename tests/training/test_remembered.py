"""Predictions that are remembered: made once an image, equal to those made anew, within their memory."""

from __future__ import annotations

from typing import NamedTuple

import mxnet as mx
import numpy as np
import pytest
from mxnet import nd
from mxnet.ndarray import NDArray

from gan_kd.errors import UsageError
from gan_kd.recipe import load
from gan_kd.training.distillers import require_given
from gan_kd.training.remembered import Remembered

CPU = mx.cpu(0)
IMAGES = np.random.default_rng(0).standard_normal((4, 3, 5, 6)).astype("float32")
A_ROW = 2 * 3 * 4 + 4  # bytes of an image's predictions


class Predictions(NamedTuple):
    rows: NDArray
    sums: NDArray


class Predict:
    """Sums of an image by channel, twice, and in all; counts the images that it is given."""

    seen = 0

    def __call__(self, images: NDArray) -> Predictions:
        self.seen += len(images)
        rows = nd.sum(images, axis=(2, 3))
        return Predictions(nd.stack(rows, 2 * rows, axis=1), nd.sum(rows, axis=1))


def equal(one: Predictions, other: Predictions) -> bool:
    return all(np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in zip(one, other))


def test_an_image_is_predicted_once() -> None:
    predict = Predict()
    remembered = Remembered(predict, 1e6)
    for order in ([0, 1, 2], [2, 3, 0], [1, 1, 3]):
        found = remembered(IMAGES[order], CPU)
        assert isinstance(found, Predictions) and found.rows.shape == (3, 2, 3) and found.sums.shape == (3,)
        assert equal(found, Predict()(nd.array(IMAGES[order])))
    assert predict.seen == 4
    mirrored = IMAGES[:1, :, :, ::-1].copy()
    assert equal(remembered(mirrored, CPU), Predict()(nd.array(mirrored))) and predict.seen == 5


def test_a_full_memory_keeps_what_it_has() -> None:
    predict = Predict()
    remembered = Remembered(predict, 2.5 * A_ROW)
    for _ in range(2):
        assert equal(remembered(IMAGES, CPU), Predict()(nd.array(IMAGES)))
    assert predict.seen == 4 + 2


def test_what_is_remembered_is_not_what_a_user_changes() -> None:
    remembered = Remembered(Predict(), 1e6)
    remembered(IMAGES, CPU).sums[:] = 0
    assert equal(remembered(IMAGES, CPU), Predict()(nd.array(IMAGES)))


def test_where_nothing_comes_again_it_is_refused() -> None:
    with pytest.raises(UsageError, match="no image comes again under data.augment ssd; leave it at 0, or set"):
        load("mini/cosine", ["teacher.remember=1"])
    recipe = load("mini/gfl-all", ["distill.region_imitation.weight=1", "stages.student.distillers=[region_imitation]"])
    with pytest.raises(UsageError, match="region_imitation compares maps, which teacher.remember 1 does not keep"):
        require_given(recipe)
