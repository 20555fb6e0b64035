"""Decoding and suppression against the published program."""

import numpy as np
import pytest
from mxnet import nd

from gan_kd.detectors.gfl.decode import GFLDecoder, suppress


@pytest.mark.parametrize("hybridized", [False, True])
def test_decoded_and_suppressed_as_published(reference, hybridized):
    decoder = GFLDecoder(96, 128, most=20)
    decoder.initialize()
    if hybridized:
        decoder.hybridize()
    scores, boxes = decoder(nd.array(reference["decode/cls"]), nd.array(reference["batch/student_reg"] / 16))
    for sample in range(2):
        found = scores[sample].asnumpy(), boxes[sample].asnumpy()
        for name, values in zip(("scores", "boxes"), found):
            np.testing.assert_allclose(values, reference[f"decode/{name}{sample}"], rtol=1e-5, atol=2e-5)
        np.testing.assert_allclose(suppress(*found), reference[f"decode/final{sample}"], rtol=1e-5, atol=2e-5)


def test_levels_that_are_small_enough_keep_their_order(reference):
    decoder = GFLDecoder(96, 128)
    decoder.initialize()
    classes = nd.array(reference["decode/cls"])
    scores, boxes = decoder(classes, nd.array(reference["batch/student_reg"] / 16))
    np.testing.assert_allclose(scores.asnumpy(), 1 / (1 + np.exp(-reference["decode/cls"])), rtol=1e-5)
    assert boxes.shape == (2, 257, 4)
    assert boxes.asnumpy().min() >= 0
    assert (boxes.asnumpy().max(axis=(0, 1)) <= [96, 128, 96, 128]).all()


def test_nothing_above_the_bound_gives_no_detection():
    assert suppress(np.full((3, 2), 0.05, np.float32), np.zeros((3, 4), np.float32)).shape == (0, 6)
