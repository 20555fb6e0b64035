"""Training images of Faster R-CNN: sizes, targets of the RPN, draws."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gan_kd.data.batch import Sample
from gan_kd.data.record import Record
from gan_kd.detectors.faster_rcnn.targets import cells_of
from gan_kd.detectors.faster_rcnn.transform import FasterRCNNTrainTransform
from gan_kd.recipe.faster_rcnn import FasterRCNN as Config

CONFIG = Config(scales=[1, 2, 4], border=None, rpn_samples=64, train_proposals=20)


class Images:
    """One image of these sides with one object in its upper left quarter."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        path = folder / "one.png"
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(path), pixels)
        self.width, self.height = width, height
        box = np.array([[0, 0, width / 2, height / 2]], np.float32)
        self.records = [Record("one", path, width, height, box, np.array([2]), np.array([False]))]

    def __len__(self) -> int:
        return 1

    def image(self, index: int, reduction: int = 1) -> np.ndarray:
        return cv2.imread(str(self.records[index].image))[..., ::-1]

    def label(self, index: int) -> np.ndarray:
        return np.array([[0, 0, self.width / 2, self.height / 2, 2, 0]], np.float32)


def made(folder, width, height, seed=0, batch=None):
    """Objects, image and targets, in a batch of this size (None: the image's own)."""
    transform = FasterRCNNTrainTransform(96, CONFIG)
    extents = transform.sizes.extents(np.array([[height, width]]))[0]
    high, wide = batch or extents
    image = np.full((3, high, wide), np.nan, np.float32)
    targets = [np.full(shape, np.nan, dtype) for shape, dtype in transform.arrays(high, wide, 4)]
    sample = Sample(Images(folder, width, height), 0)
    return transform.write(sample, np.random.default_rng(seed), image, targets), image, targets, extents


def test_the_longer_side_is_bounded_and_boxes_follow(tmp_path):
    objects, image, (labels, offsets, draws), extents = made(tmp_path, 300, 150)
    assert extents.tolist() == [80, 160] and image.shape == (3, 80, 160)  # 5/3 of 96 px
    assert objects.shape == (1, 5) and objects[0, 4] == 2
    np.testing.assert_allclose(objects[0, [1, 3]], [0, 40], atol=1e-3)
    np.testing.assert_allclose(objects[0, 2] - objects[0, 0], 80, atol=1e-3)
    assert np.isfinite(image).all() and labels.shape == (5, 10, 9) and offsets.shape == (5, 10, 9, 4)
    assert (labels == 1).any() and (labels >= 0).sum() == 64
    assert draws.shape == (24,) and (draws >= 0).all() and (draws < 1).all() and len(set(draws.tolist())) == 24


@pytest.mark.parametrize("width, height", [(101, 97), (333, 500), (500, 333), (353, 200)])
def test_boxes_stay_inside_whatever_is_rounded(tmp_path, width, height):
    """Sides are rounded to whole px; an object at the border ends where the image does, mirrored or not."""
    for seed in range(4):
        objects, _, _, (high, wide) = made(tmp_path, width, height, seed)
        assert (objects[:, :4] >= 0).all() and objects[0, 2] <= wide and objects[0, 3] <= high
        assert objects[0, 2] == pytest.approx(wide) or objects[0, 0] == pytest.approx(0, abs=1e-3)


def test_half_of_the_images_are_mirrored_with_their_boxes(tmp_path):
    left = [made(tmp_path, 100, 100, seed)[0][0, 0] for seed in range(40)]
    assert set(np.round(left)) == {0, 48} and 8 < sum(x > 1 for x in left) < 32


def test_a_larger_batch_is_padded_and_padding_is_ignored(tmp_path):
    one, image, (labels, offsets, draws), _ = made(tmp_path, 120, 100)
    other, padded, (wider, more, same), extents = made(tmp_path, 120, 100, batch=(128, 160))
    np.testing.assert_array_equal(one, other)
    height, width = extents
    np.testing.assert_array_equal(padded[:, :height, :width], image)
    assert not padded[:, height:].any() and not padded[:, :, width:].any()
    rows, columns = cells_of((height, width))
    np.testing.assert_array_equal(wider[:rows, :columns], labels)
    np.testing.assert_array_equal(more[:rows, :columns], offsets)
    assert (wider[rows:] == -1).all() and (wider[:, columns:] == -1).all()
    np.testing.assert_array_equal(draws, same)


def test_all_follows_from_the_generator(tmp_path):
    first, again, other = (made(tmp_path, 120, 100, seed)[2] for seed in (1, 1, 2))
    for one, two in zip(first, again):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[2], other[2])
