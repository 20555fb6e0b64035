"""The rivals of the field do the same work: equal predictions, and equal losses step by step."""

from pathlib import Path

import numpy as np
import pytest

from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.network import join, split
from scripts.timings import field
from scripts.timings.step import CLASSES, random_batch

NETWORK = ("mobilenet0.25", 128)
needs_torch = pytest.mark.skipif(not field.TORCH_PYTHON.exists(), reason=field.NO_TORCH)


def setting(backbone, size, batch=4):
    detector = join(*split(zoo.build(backbone, size, CLASSES)))
    return detector, random_batch(batch, size, len(detector.head.anchors(detector.extractor.sizes)))


def our_losses(detector, batch, steps):
    step = field.our_step(field.copied(detector, *NETWORK), batch)
    return [sum(part.asscalar() for (part,) in step().values()) for _ in range(steps)]


def test_gluoncvs_script_has_our_losses_step_by_step():
    detector, batch = setting(*NETWORK)
    step = field.script_step(field.zoo_twin(detector, *NETWORK), batch)
    losses = [step() for _ in range(2)]  # rounding doubles and more with every step
    assert losses == pytest.approx(our_losses(detector, batch, 2), rel=1e-3)


@needs_torch
def test_pytorch_has_our_losses_step_by_step(tmp_path):
    detector, batch = setting(*NETWORK)
    with field.torch_process(detector, batch, "contiguous", tmp_path) as ask:
        losses = [float(ask("train")) for _ in range(2)]
    assert losses == pytest.approx(our_losses(detector, batch, 2), rel=2e-3)


@needs_torch
@pytest.mark.parametrize("backbone, size", [NETWORK, ("resnet18_v1", 128), ("vgg16_atrous", 300)])
def test_pytorch_has_our_predictions(backbone, size, tmp_path):
    detector, batch = setting(backbone, size, batch=2)
    with field.torch_process(detector, batch, "channels_last", tmp_path) as ask:
        ask("save")
    ours = [array.asnumpy() for array in field.our_forward(detector, batch)()]
    theirs = np.load(tmp_path / "predictions.npz").values()
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4 * np.abs(a).max())


@needs_torch
def test_a_process_that_ends_is_said(tmp_path):
    detector, batch = setting(*NETWORK, batch=1)
    process = field.torch_process(detector, batch, "contiguous", tmp_path)
    with process as ask, pytest.raises(RuntimeError, match="ended in 'dance'"):
        ask("dance")


def test_without_pytorch_the_result_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(field, "TORCH_PYTHON", Path("nowhere"))
    gluoncv, torch = field.measure(1, *NETWORK, batch=2, suffix="_small")
    assert [gluoncv.key, torch.key] == ["ours_over_gluoncv_step_small", "ours_over_torch_step_small"]
    assert len(gluoncv.ratios) == 1 and gluoncv.ratios[0] > 0
    assert torch.ratios == [] and "requirements-benchmark.txt" in torch.notes[0]
