"""The benchmark of YOLOv3: rival and ours train alike, and both keys have their figures."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from gan_kd.detectors.yolo3 import zoo
from scripts.timings import loader, yolo3
from scripts.timings.step import CLASSES


def test_the_rivals_step_moves_weights_as_ours_does() -> None:
    nets, batch = [], yolo3.random_batch(2, 64)
    for kind in (yolo3.our_step, yolo3.script_step):
        mx.random.seed(0)
        net = zoo.build("mobilenet0.25", CLASSES, [16, 8, 8], objectness=-4.6)
        before = net.yolo_outputs[0].prediction.weight.data().asnumpy()
        kind(net, batch)()
        nets.append(net._collect_params_with_prefix())
    for name in ("stages.0.0.weight", "yolo_outputs.0.prediction.weight", "yolo_blocks.1.body.0.0.weight"):
        ours, theirs = (parameters[name].data().asnumpy() for parameters in nets)
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())
    assert not np.array_equal(nets[0]["yolo_outputs.0.prediction.weight"].data().asnumpy(), before)


def test_both_figures_on_drawn_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "PHOTOS", tmp_path / "nowhere")
    monkeypatch.setattr(loader, "IMAGES", 2)
    monkeypatch.setattr(loader, "BATCH", 2)
    monkeypatch.setattr(yolo3, "SIZE", 64)
    figures = [yolo3.step(1, "mobilenet0.25", 64, 2), yolo3.loading(1)]
    assert [(each.key, each.aim, each.at_least) for each in figures] == [
        ("yolo3_step_over_gluoncv", 1.05, False), ("yolo3_loader_ratio", 8, True)
    ]  # fmt: skip
    assert all(len(each.ratios) == 1 and each.ratio > 0 for each in figures)
    assert "2 drawn images" in figures[1].what
