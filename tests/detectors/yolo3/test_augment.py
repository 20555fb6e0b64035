"""Mixtures against GluonCV's, and the draws of sizes."""

from __future__ import annotations

import mxnet as mx
import numpy as np
from gluoncv.data import MixupDetection

from gan_kd.detectors.yolo3.augment import draw_mixture, input_size, mix

SIZES = list(range(320, 609, 32))


def test_mixture_is_gluoncvs() -> None:
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, shape, np.uint8) for shape in ((20, 30, 3), (25, 10, 3))]
    pairs = [(mx.nd.array(image, dtype="uint8"), np.zeros((1, 5))) for image in images]
    for share in (0.25, 0.37, 0.81):
        expected, label = MixupDetection(pairs, lambda share=share: share)[0]
        np.testing.assert_array_equal(mix(images[0], images[1], share), expected.asnumpy())
        np.testing.assert_allclose(label[:, -1], [share, 1 - share])


def test_every_other_image_is_a_partner_and_shares_follow_the_beta_distribution() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_mixture(rng, 2, 5) for _ in range(2000)]
    partners, shares = (np.array(values) for values in zip(*drawn))
    assert set(partners) == {0, 1, 3, 4}
    assert abs(shares.mean() - 0.5) < 0.02 and abs(shares.var() - 1 / 16) < 0.005  # 1 / (4 (2 x 1.5 + 1))


def test_sizes_change_every_ten_batches_and_follow_from_the_place_alone() -> None:
    drawn = [input_size(SIZES, 7, 0, batch) for batch in range(3000)]
    blocks = np.array(drawn).reshape(-1, 10)
    assert (blocks == blocks[:, :1]).all()
    counts = np.array([np.count_nonzero(blocks[:, 0] == size) for size in SIZES])
    assert counts.sum() == 300 and counts.min() >= 15
    assert [input_size(SIZES, 7, 1, batch) for batch in range(100)] != drawn[:100]
    assert [input_size(SIZES, 8, 0, batch) for batch in range(100)] != drawn[:100]
