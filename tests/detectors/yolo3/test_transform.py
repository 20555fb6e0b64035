"""YOLOv3's training images: mixtures against GluonCV's, and what a loader makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from gluoncv.data import MixupDetection

from gan_kd.data.loader import Loader
from gan_kd.detectors.yolo3.targets import YOLO3Targets
from gan_kd.detectors.yolo3.transform import YOLO3TrainTransform, mix


class Photos:
    """Twelve images of two sizes; image k has one object of class k, and 12 + k where k is even."""

    def __init__(self) -> None:
        self.records = [SimpleNamespace(image=Path(f"{k}.png"), width=60 + k % 2, height=50) for k in range(12)]

    def __len__(self) -> int:
        return len(self.records)

    def image(self, index: int, reduction: int = 1) -> np.ndarray:
        return np.full((50, self.records[index].width, 3), 20 * index, np.uint8)

    def label(self, index: int) -> np.ndarray:
        rows = [[5, 5, 40, 40, index, 1], [20, 10, 55, 45, 12 + index, 0]]
        return np.array(rows[: 1 + (index % 2 == 0)], np.float32)


def batches(transform, epoch, seed=3):
    with Loader(Photos(), transform, 4, 0, seed, train=True) as loader:
        return [(batch.images.copy(), batch.truth.copy(), batch.targets[0].copy()) for batch in loader.epoch(epoch)]


def test_mixture_is_gluoncvs() -> None:
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, shape, np.uint8) for shape in ((20, 30, 3), (25, 10, 3))]
    pairs = [(mx.nd.array(image, dtype="uint8"), np.zeros((1, 5))) for image in images]
    for share in (0.25, 0.37, 0.81):
        expected, label = MixupDetection(pairs, lambda share=share: share)[0]
        np.testing.assert_array_equal(mix(images[0], images[1], share), expected.asnumpy())
        np.testing.assert_allclose(label[:, -1], [share, 1 - share])


@pytest.mark.parametrize("augment", ["ssd", "flip"])
def test_targets_are_those_of_the_truth(augment: str) -> None:
    for images, truth, rows in batches(YOLO3TrainTransform([64, 96], augment=augment), 0):
        assert images.shape[2] in (64, 96) and truth.shape == (4, 2, 5) and rows.shape == (4, 2, 8)
        for objects, written in zip(truth, rows):
            objects = objects[objects[:, 4] >= 0]
            expected = YOLO3Targets(images.shape[2])(objects[:, :4], objects[:, 4])
            np.testing.assert_array_equal(written[: len(expected)], expected)
            assert (written[len(expected) :] == -1).all() and (expected[:, 6] == 1).all()


def test_mixtures_end_before_training_does() -> None:
    transform = YOLO3TrainTransform([64], mixup_epochs=2, augment="flip")
    for epoch, mixed in enumerate((True, True, False)):
        shares = []
        for _, truth, rows in batches(transform, epoch):
            assert truth.shape == (4, 4, 5)  # two images' objects
            for objects, written in zip(truth, rows):
                assert len({int(kind) % 12 for kind in objects[:, 4] if kind >= 0}) == 1 + mixed
                shares += written[written[:, 0] >= 0, 6].tolist()
        assert (max(shares) < 1) is mixed and min(shares) > 0
    rows = np.concatenate([rows.reshape(-1, 8) for k in range(20) for *_, rows in batches(transform, 0, k)])
    drawn = rows[rows[:, 0] >= 0, 6]
    assert abs(drawn.mean() - 0.5) < 0.04 and abs(drawn.var() - 1 / 16) < 0.02  # 1 / (4 (2 x 1.5 + 1))


class Classes:
    """Marks which classes an image has."""

    def arrays(self, height: int, width: int) -> list[tuple[tuple[int, ...], type]]:
        return [((24,), np.float32)]

    def write(self, objects: np.ndarray, height: int, width: int, arrays: Sequence[np.ndarray]) -> None:
        arrays[0][:] = np.bincount(objects[:, 4].astype(int), minlength=24) > 0


def test_distillers_see_the_objects_of_both_images_of_a_mixture() -> None:
    transform = YOLO3TrainTransform([64], mixup_epochs=1, augment="flip")
    with Loader(Photos(), transform, 4, 0, 3, train=True, regions=[Classes()]) as loader:
        for batch in loader.epoch(0):
            for objects, marked in zip(batch.truth, batch.regions[0][0]):
                kinds = {int(kind) for kind in objects[:, 4] if kind >= 0}
                assert set(np.flatnonzero(marked)) == kinds and len({kind % 12 for kind in kinds}) == 2


def test_a_batch_follows_from_its_place_alone() -> None:
    transform = YOLO3TrainTransform([64, 96, 128], mixup_epochs=9)
    with Loader(Photos(), transform, 2, 0, 5, train=True) as loader:
        expected = [[array.copy() for array in (b.images, b.truth, b.targets[0])] for b in loader.epoch(1)]
        found = [[array.copy() for array in (b.images, b.truth, b.targets[0])] for b in loader.epoch(1, start_batch=4)]
    for ours, theirs in zip(found, expected[4:]):
        for one, other in zip(ours, theirs):
            np.testing.assert_array_equal(one, other)
