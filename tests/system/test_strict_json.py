"""Every JSON file is JSON: null where a number is not finite, and not another byte where all are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest

from gan_kd.detection.results import Results
from gan_kd.detectors import description
from gan_kd.gluon.params_file import MARK
from gan_kd.recipe import load, to_yaml
from gan_kd.report.run import read_run
from gan_kd.system.files import write_json
from gan_kd.system.strict_json import dumps, with_nan
from gan_kd.system.untrusted import read_json
from gan_kd.training import checkpoint
from gan_kd.training.logs import MetricsFile

NAN = math.nan


def strictly(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("indent", [None, 1])
def test_finite_values_are_written_as_python_writes_them(indent: int | None) -> None:
    value = {"a": [1, 2.5, 1e-17, True, None, "é"], "b": {"c": (1, -0.0)}, "d": np.float64(0.1)}
    assert dumps(value, indent) == json.dumps(value, indent=indent)


def test_what_is_not_finite_is_null_at_any_depth() -> None:
    text = dumps({"a": [NAN, 1.5, (math.inf, {"b": -math.inf})], "c": np.float64("nan"), "d": "NaN"})
    assert strictly(text) == {"a": [None, 1.5, [None, {"b": None}]], "c": None, "d": "NaN"}
    assert math.isnan(with_nan(strictly(text))["a"][2][1]["b"])


def test_the_files_of_a_run(tmp_path: Path) -> None:
    write_json(tmp_path / "eval.json", {"map": NAN})
    assert strictly((tmp_path / "eval.json").read_text()) == {"map": None}
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0)
    metrics.write({"kind": "eval", "map": NAN, "ap": {"cat": 0.5, "dog": NAN}})
    assert (
        tmp_path / "metrics.jsonl"
    ).read_text() == '{"kind": "eval", "map": null, "ap": {"cat": 0.5, "dog": null}}\n'
    state = {"teacher_map": NAN, "origin": {}}
    saved = checkpoint.save(tmp_path / "checkpoints", "0001", {"a": mx.nd.zeros(1)}, state, keep=1)
    assert strictly((saved / "state.json").read_text())["teacher_map"] is None
    mx.nd.save(str(tmp_path / "best.params"), {"a": mx.nd.zeros(1)})
    description.append(tmp_path / "best.params", {"map": NAN})
    strictly((tmp_path / "best.params").read_bytes().rpartition(MARK)[2].decode())
    assert (description.read(tmp_path / "best.params") or {})["map"] is None
    results = Results(("cat",))
    results.add({"id": 1, "file_name": "a.jpg"}, 10, 10, np.array([[1, 2, 3, 4, 0, NAN]]))
    results.save(tmp_path)
    assert strictly((tmp_path / "detections.json").read_text())[0]["score"] is None


def test_reports_read_old_and_new_alike(tmp_path: Path) -> None:
    """Runs of before have the word NaN, which Python reads."""
    record = {"kind": "eval", "stage": "teacher", "trains": "teacher", "epoch": 1, "batch": 6, "step": 6, "map": 2.0,
              "ap": {"circle": 2.0, "square": NAN}}  # fmt: skip
    runs = []
    for name, write in (("old", json.dumps), ("new", dumps)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "recipe.yaml").write_text(to_yaml(load("demo")))
        lines = [record, {**record, "epoch": 2, "map": NAN}, {**record, "kind": "diagnosis", "maps": [8], "gap": [NAN]}]
        (folder / "metrics.jsonl").write_text("".join(f"{write(line)}\n" for line in lines))
        (folder / "teacher").mkdir()
        (folder / "teacher/eval.json").write_text(write({"map": NAN, "ap": {"circle": 1.0, "square": NAN}}))
        runs.append(read_run(folder))
    old, new = (run.networks["teacher"] for run in runs)
    assert "NaN" in (tmp_path / "old/metrics.jsonl").read_text()
    assert "NaN" not in (tmp_path / "new/metrics.jsonl").read_text()
    assert runs[0].problems == runs[1].problems == []
    assert (old.map, old.last_map, old.ap, len(old.evals)) == (new.map, new.last_map, new.ap, len(new.evals))
    assert (new.map, new.last_map, new.ap) == (2.0, None, {"circle": 1.0})
    assert read_json(tmp_path / "new/teacher/eval.json")["map"] is None
