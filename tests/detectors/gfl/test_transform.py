"""Training images with the object of every prior, squared and padded."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gan_kd.data.loader import Loader
from gan_kd.data.sizes import Bounded, Square
from gan_kd.detectors.gfl import priors
from gan_kd.detectors.gfl.targets import assign
from gan_kd.detectors.gfl.transform import UNUSED, GFLTrainTransform

SIZES = [(90, 120), (120, 80), (64, 64)]  # height, width


class Pictures:
    """Three images: two objects and a difficult one, one object, none."""

    records = [SimpleNamespace(image=Path(f"{i}.png"), height=h, width=w) for i, (h, w) in enumerate(SIZES)]
    labels = [
        [[5, 8, 60, 70, 1, 0], [50, 10, 110, 80, 0, 0], [1, 1, 30, 30, 2, 1]],
        [[10, 20, 70, 110, 2, 0]],
        [],
    ]

    def __len__(self):
        return 3

    def image(self, index, reduction=1):
        return np.random.default_rng(index).integers(0, 256, (*SIZES[index], 3), dtype=np.uint8)

    def label(self, index):
        return np.array(self.labels[index], np.float32).reshape(-1, 6)


@pytest.mark.parametrize("sizes", [Square(128), Bounded(96, 160, 32)])
def test_every_prior_has_its_object(sizes):
    transform = GFLTrainTransform(sizes)
    with Loader(Pictures(), transform, 3, 0, seed=1, train=True) as loader:
        order = loader.order(0).tolist()
        batch = next(loader.epoch(0))
    made = priors.make(priors.shapes(*batch.images.shape[:1:-1]))
    for row, index in enumerate(order):
        objects, thresholds = (target[row] for target in batch.targets)
        boxes = batch.truth[row]
        kept = boxes[boxes[:, 4] >= 0]
        assert len(kept) == [2, 1, 0][index]  # without the difficult one
        height, width = sizes.extents(np.array([SIZES[index]]))[0]
        expected = Pictures().label(index)[: len(kept), :4] * ([width, height] * 2 / np.tile(SIZES[index][::-1], 2))
        mirrored = np.stack([width - expected[:, 2], expected[:, 1], width - expected[:, 0], expected[:, 3]], axis=1)
        assert any(np.allclose(kept[:, :4], one, atol=1e-3) for one in (expected, mirrored))
        used = made.inside(-(-width // 32) * 32, -(-height // 32) * 32)
        np.testing.assert_array_equal(objects == UNUSED, ~used)
        found = assign(made, kept[:, :4], used)
        np.testing.assert_array_equal(objects[used], found.objects[used])
        np.testing.assert_array_equal(thresholds[: len(kept)], found.thresholds)
        assert (batch.images[row, :, height:] == 0).all()
        assert (batch.images[row, :, :, width:] == 0).all()
    if isinstance(sizes, Bounded):
        assert (batch.targets[0] == UNUSED).any()


def test_workers_need_no_mxnet():
    code = "import gan_kd.detectors.gfl.transform, sys; assert 'mxnet' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
