"""scripts/gluoncv_faster_rcnn.py on drawn images: it learns by GluonCV's loop from our weights, and is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gan_kd.detectors.saved import load_detector
from gan_kd.recipe import load
from gan_kd.training.networks import build_student
from scripts import gluoncv_faster_rcnn as script

SETTINGS = [
    "faster_rcnn={scales: [1, 2], roi_size: 3, rpn_channels: 16, rpn_samples: 32, min_size: 4, train_proposals: 40,"
    " test_proposals: 30, samples: 16}",
    "data={dataset: demo, train: [train], val: [test], classes: annotations, unknown_classes: report, size: 64,"
    " demo: {train: 6, test: 3}}",
    "student.init=random",
    "stages.first.epochs=1",
    "stages.second.epochs=1",
    "train.num_workers=0",
]


def test_a_baseline_is_trained_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [*SETTINGS, f"data.root={tmp_path / 'data'}"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert script.main([*words, "--seed", "3", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("epoch 1: RPN_Conf 0.") and "\nepoch 2: " in said and "\nvoc07 mAP " in said
    measured = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert (measured["images"], measured["seed"], measured["network"]) == (3, 3, "baseline")
    recipe = load("faster_rcnn_mini/none", [*settings, "train.seed=3"])
    trained = load_detector(tmp_path / "out" / "best.params", recipe)[0].weights()
    for name, parameter in build_student(recipe, measured["ap"], "baseline", None).detector.weights().items():
        equal = np.array_equal(parameter.data().asnumpy(), trained[name].data().asnumpy())
        assert equal == ("running" in name or "anchors" in name), name


def test_stages_that_gluoncv_cannot_train_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--recipe", "faster_rcnn_mini/gan"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: stages.first: GluonCV's loop takes stages of the baseline") and said.count("\n") == 1
