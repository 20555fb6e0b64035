"""A family of detectors and a distiller of one's own are all that the seams need: see tests/toy_family.py."""

import json

import mxnet as mx
import numpy as np
import pytest

from gan_kd.evaluation.evaluate import evaluate_params
from gan_kd.recipe import from_dict
from gan_kd.recipe.families import FAMILIES, Facts
from gan_kd.system.stop import Stopped, StopSignal
from gan_kd.training.run import train
from tests.toy_family import WIDTHS
from tests.training.test_resume import StopAt


def test_a_toy_family_is_trained_resumed_evaluated_and_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "toy", Facts("Toy", "tests.toy_family", tuple(WIDTHS), lambda recipe: None))
    data = {"dataset": "demo", "train": ["train"], "val": ["test"], "classes": "annotations", "size": 64,
            "root": str(tmp_path / "data"), "demo": {"train": 12, "test": 2}}  # fmt: skip
    recipe = from_dict({
        "name": "toy", "detector": "toy", "data": data, "distill": {"head": "own"},
        "teacher": {"backbone": "toy_large", "init": "random"}, "student": {"backbone": "toy_small", "init": "random"},
        "stages": {"teach": {"trains": "teacher", "epochs": 1},
                   "learn": {"trains": "distilled", "epochs": 2, "distillers": ["tests.toy_family.Scores"]}},
        "train": {"batch_size": 4, "num_workers": 0, "log_interval": 1},
    })  # fmt: skip
    with StopSignal() as stop:
        page = train(recipe, tmp_path / "whole", False, stop)
    with StopAt(7) as stop, pytest.raises(Stopped):
        train(recipe, tmp_path / "parts", False, stop)
    with StopSignal() as stop:
        train(recipe, tmp_path / "parts", True, stop)
    runs = [tmp_path / part / "toy" / "233" for part in ("whole", "parts")]
    lines = [(run / "metrics.jsonl").read_text() for run in runs]
    assert lines[0] == lines[1] and '"scores"' in lines[0] and '"corners"' in lines[0]
    weights = [mx.nd.load(str(run / "distilled" / "best.params")) for run in runs]
    assert all(np.array_equal(array.asnumpy(), weights[1][name].asnumpy()) for name, array in weights[0].items())
    found = evaluate_params(recipe, runs[0] / "distilled" / "best.params", [mx.cpu()])
    assert found["images"] == 2 and found["teacher"]["backbone"] == "toy_large"
    assert found["map"] == json.loads((runs[0] / "distilled" / "eval.json").read_text())["map"]
    assert "Toy toy_small ← Toy toy_large" in page.read_text()
