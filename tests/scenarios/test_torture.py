"""The torture script, small; and that it sees a difference."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from gan_kd.recipe import load
from scripts.torture import RECIPES, Difference, Moment, compare

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "torture.py"


@pytest.mark.slow
def test_killed_runs_equal_the_undisturbed_one():
    done = subprocess.run([sys.executable, SCRIPT, "--kills", "1"], capture_output=True, text=True, timeout=1200)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(lines) == 3 and lines[-1] == "1 of 1 equal"
    assert "1/1 SIG" in lines[1] and lines[1].endswith(": equal")


@pytest.mark.parametrize("detector", RECIPES)
def test_a_recipe_has_every_stage(detector):
    recipe = load(RECIPES[detector])
    assert recipe.detector == detector
    inherits = {"control"} if recipe.distill.head == "inherit" else set()
    assert {stage.trains for stage in recipe.stages.values()} == {"teacher", "baseline", "distilled"} | inherits
    assert ("localization" if detector == "gfl" else "gan") in recipe.distillers_of("distilled")


@pytest.fixture
def runs(tmp_path):
    """Two equal runs, as far as they are compared."""
    one = tmp_path / "one"
    (one / "teacher").mkdir(parents=True)
    (one / "checkpoints" / "00-0001").mkdir(parents=True)
    (one / "metrics.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    for file in ("teacher/best.params", "checkpoints/00-0001/arrays.params"):
        mx.nd.save(str(one / file), {"weight": mx.nd.array([1, 2])})
    (one / "teacher" / "eval.json").write_text(json.dumps({"map": 1, "images_per_s": 7}))
    (one / "checkpoints" / "00-0001" / "state.json").write_text(json.dumps({"progress": {"epoch": 1}}))
    return one, shutil.copytree(one, tmp_path / "two")


def test_equal_runs(runs):
    (runs[1] / "teacher" / "eval.json").write_text(json.dumps({"map": 1, "images_per_s": 8}))
    compare(*runs)


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("metrics.jsonl", '{"a": 1}\n{"a": 3}\n', 'line 2: {"a": 3} instead of {"a": 2}'),
        ("metrics.jsonl", '{"a": 1}\n', "1 lines instead of 2"),
        ("teacher/eval.json", '{"map": 2}', "teacher/eval.json differs"),
        ("checkpoints/00-0001/state.json", '{"progress": {}}', "state.json differs"),
        ("control/best.params", "", "only one of the runs has control/best.params"),
    ],
)
def test_a_difference_is_named(runs, file, content, message):
    (runs[1] / file).parent.mkdir(exist_ok=True)
    (runs[1] / file).write_text(content)
    with pytest.raises(Difference) as raised:
        compare(*runs)
    assert message in str(raised.value)


@pytest.mark.parametrize("file", ["teacher/best.params", "checkpoints/00-0001/arrays.params"])
def test_one_other_number_is_named(runs, file):
    mx.nd.save(str(runs[1] / file), {"weight": mx.nd.array([1, np.nextafter(np.float32(2), np.float32(3))])})
    with pytest.raises(Difference, match="weight differs"):
        compare(*runs)


def test_moments_are_of_the_run():
    rng = np.random.default_rng(0)
    moments = [Moment.draw(rng, 10, 5) for _ in range(200)]
    assert {moment.records for moment in moments} == set(range(6))
    assert all(0 <= moment.seconds < (2 if moment.records else 10) for moment in moments)
