"""The teacher's statistics of a channel: which batches count, on several devices, and over a resume."""

import mxnet as mx
import numpy as np

from gan_kd.distill.base import Seen
from gan_kd.distill.standard import BATCHES, Standard

SHAPES = [(5, 8, 6, 6), (5, 4, 1, 1)]
DEVICES = [mx.cpu(0), mx.cpu(1)]


def maps(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return [mx.nd.array(scale * rng.standard_normal(shape) + 3) for shape in SHAPES]


def seen(teacher, devices=1):
    rows = np.array_split(np.arange(SHAPES[0][0]), devices)
    return [
        Seen([m[part[0] : part[-1] + 1].as_in_context(context) for m in teacher], [])
        for part, context in zip(rows, DEVICES)
    ]


def standardised(standard, inputs):
    return [z.asnumpy() for z in standard(inputs)]


def test_the_first_batches_alone_count_and_nothing_changes_after_them():
    standard = Standard([8, 4])
    for batch in range(BATCHES):
        standard.see(seen(maps(batch)))
    before = standardised(standard, maps(99))
    standard.see(seen(maps(98, scale=50.0)))
    for a, b in zip(before, standardised(standard, maps(99))):
        np.testing.assert_array_equal(a, b)
    whole = np.concatenate([maps(batch)[0].asnumpy() for batch in range(BATCHES)])
    mean, deviation = whole.mean(axis=(0, 2, 3)), whole.std(axis=(0, 2, 3))
    scale = deviation + 0.05 * np.sqrt((deviation**2).mean())
    expected = (maps(99)[0].asnumpy() - mean[None, :, None, None]) / scale[None, :, None, None]
    np.testing.assert_allclose(before[0], expected, rtol=1e-3, atol=1e-3)


def test_two_devices_have_the_statistics_of_one():
    one, two = Standard([8, 4]), Standard([8, 4])
    for batch in range(3):
        one.see(seen(maps(batch)))
        two.see(seen(maps(batch), devices=2))
    for a, b in zip(standardised(one, maps(9)), standardised(two, maps(9))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    there = [m.as_in_context(mx.cpu(1)) for m in maps(9)]
    assert all(z.context == mx.cpu(1) for z in two(there))


def test_a_resumed_run_counts_on(tmp_path):
    straight, resumed = Standard([8, 4]), Standard([8, 4])
    for batch in range(5):
        straight.see(seen(maps(batch)))
    mx.nd.save(str(tmp_path / "state"), straight.state())
    resumed.load_state(mx.nd.load(str(tmp_path / "state")))
    for standard in (straight, resumed):
        for batch in range(5, BATCHES + 3):
            standard.see(seen(maps(batch)))
    for a, b in zip(standardised(straight, maps(9)), standardised(resumed, maps(9))):
        np.testing.assert_array_equal(a, b)


def test_a_channel_that_never_moves_stays_finite():
    standard = Standard([8, 4])
    still = [mx.nd.zeros(shape) for shape in SHAPES]
    standard.see(seen(still))
    assert all(np.isfinite(z).all() for z in standardised(standard, still))
