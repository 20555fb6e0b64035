"""The script that compares two checkouts: what it calls a difference; and digests of today against those stored."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from gan_kd.data.loader import Loader
from gan_kd.recipe import load, names, recipe_hash
from scripts.same import machine_key, main
from scripts.same_files import (
    Difference,
    compare_checkpoints,
    compare_digests,
    compare_exports,
    compare_metrics,
    compare_networks,
    symbol,
)
from scripts.same_probe import find

ROOT = Path(__file__).resolve().parents[1]
STORED = json.loads((ROOT / "tests" / "same_digests.json").read_text())
HOW = "numbers changed: if that is meant, say so in the commit, and make tests/same_digests.json anew by --digests"
ARRAYS = {"detector/w": [1, 2], "optimiser/0.0": [3], "optimiser/0.1": [4], "gan/optimiser/1.count": [5]}


def test_recipes_have_the_hashes_that_are_stored():
    """Checkpoints and studies know a recipe by its hash."""
    hashes = {f"recipes: {name}": recipe_hash(load(name)) for name in names()}
    stored = {name: digest for name, digest in STORED["exact"].items() if name.startswith("recipes: ")}
    assert {name: hashes.get(name) for name in stored} == stored, HOW


@pytest.fixture(scope="module")
def digests(tmp_path_factory):
    file = tmp_path_factory.mktemp("digests") / "digests.json"
    command = [sys.executable, str(ROOT / "scripts" / "same.py"), "--digests", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(file.read_text())


@pytest.mark.slow
def test_order_class_targets_first_weights_and_graphs_are_those_stored(digests):
    assert {name: digests["exact"].get(name) for name in STORED["exact"]} == STORED["exact"], HOW


@pytest.mark.slow
def test_images_box_targets_and_a_training_are_those_stored(digests):
    if machine_key() != STORED["machine"]:
        pytest.skip("stored on another processor or with other versions, whose kernels round otherwise")
    assert {name: digests["measured"].get(name) for name in STORED["measured"]} == STORED["measured"], HOW


@pytest.fixture
def runs(tmp_path):
    """Two equal runs, as far as they are compared."""
    one = tmp_path / "one"
    checkpoint = one / "checkpoints" / "00-0001-stage"
    for folder in (one / "teacher", checkpoint):
        folder.mkdir(parents=True)
    (one / "metrics.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    save(one / "teacher" / "best.params", {"a": [1, 2], "b": [3]})
    save(checkpoint / "arrays.params", ARRAYS)
    (one / "teacher" / "best.json").write_text(json.dumps({"backbone": "x", "commit": "c", "sha256": "s"}))
    (one / "teacher" / "eval.json").write_text(json.dumps({"map": 1, "images_per_s": 7}))
    (checkpoint / "state.json").write_text(json.dumps({"progress": {"epoch": 1}}))
    return one, shutil.copytree(one, tmp_path / "two")


def save(path, arrays):
    mx.nd.save(str(path), {name: mx.nd.array(values) for name, values in arrays.items()})


def compare(old, new):
    return [compare_metrics(old, new), compare_networks(old, new), compare_checkpoints(old, new)]


def test_equal_runs_of_two_commits(runs):
    (runs[1] / "teacher" / "eval.json").write_text(json.dumps({"map": 1, "images_per_s": 8, "new": 1}))
    (runs[1] / "teacher" / "best.json").write_text(json.dumps({"backbone": "x", "commit": "d", "new": 1}))
    assert compare(*runs) == ["2 lines", "1 params files, 2 arrays", "1 checkpoints, 4 arrays"]


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("metrics.jsonl", '{"a": 1}\n{"a": 3}\n', 'line 2 is {"a": 3} instead of {"a": 2}'),
        ("metrics.jsonl", '{"a": 1}\n', "1 lines instead of 2"),
        ("teacher/best.json", '{"backbone": "y"}', "teacher/best.params: its best.json has another backbone"),
        ("teacher/eval.json", '{"map": 2}', "teacher/eval.json: map differs"),
        ("checkpoints/00-0001-stage/state.json", '{"progress": {}}', "state.json: progress differs"),
        ("control/best.params", "", "only one of the two has control/best.params"),
    ],
)
def test_a_difference_is_named(runs, file, content, message):
    (runs[1] / file).parent.mkdir(exist_ok=True)
    (runs[1] / file).write_text(content)
    with pytest.raises(Difference) as raised:
        compare(*runs)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"a": [1, np.nextafter(np.float32(2), np.float32(3))], "b": [3]}, "best.params: a differs"),
        ({"b": [3], "a": [1, 2]}, "in another order: b for a"),
        ({"a": [1, 2]}, "other arrays, .*: b"),
    ],
)
def test_one_other_number_name_or_place_is_named(runs, arrays, message):
    save(runs[1] / "teacher" / "best.params", arrays)
    with pytest.raises(Difference, match=message):
        compare(*runs)


def test_moments_may_have_other_names_but_no_other_numbers(runs):
    names = dict(zip(ARRAYS, ("detector/w", "optimiser/w.0", "optimiser/w.1", "gan/optimiser/d.w.count")))
    renamed = {names[key]: values for key, values in ARRAYS.items()}
    file = runs[1] / "checkpoints" / "00-0001-stage" / "arrays.params"
    save(file, renamed)
    compare(*runs)
    for change in ({"optimiser/w.0": [4], "optimiser/w.1": [3]}, {"gan/optimiser/d.w.count": [6]}):
        save(file, {**renamed, **change})
        with pytest.raises(Difference, match="the optimisers' moments differ"):
            compare(*runs)


def test_a_resumed_run_may_have_more_checkpoints(runs):
    shutil.copytree(runs[1] / "checkpoints" / "00-0001-stage", runs[1] / "checkpoints" / "00-0000-stage")
    compare_checkpoints(*runs, more=True)
    with pytest.raises(Difference, match="only one of the two has checkpoints/00-0000-stage"):
        compare_checkpoints(*runs)


def test_digests():
    assert compare_digests({"a": "1"}, {"a": "1", "b": "2"}, both=True) == "1"
    with pytest.raises(Difference, match="only one of them has b"):
        compare_digests({"a": "1"}, {"a": "1", "b": "2"}, both=False)
    with pytest.raises(Difference, match="a differs"):
        compare_digests({"a": "1"}, {"a": "2"}, both=True)


def test_functions_are_found_wherever_they_are_defined():
    assert find("Loader") is Loader
    for name, modules in (("no_such_function", "0"), ("main", "[0-9]+")):
        with pytest.raises(LookupError, match=f"{name} is defined in {modules} modules"):
            find(name)


def exported(folder, name, slope):
    """A graph whose layers have made-up names, with its weights."""
    folder.mkdir(exist_ok=True)
    net = mx.sym.LeakyReLU(mx.sym.var("data") * mx.sym.var(f"{name}_weight"), slope=slope, name=f"{name}_relu")
    net.save(str(folder / "net-symbol.json"))
    save(folder / "net-0000.params", {f"arg:{name}_weight": [1]})
    return folder


def test_exports_are_compared_but_for_names(tmp_path):
    onnx = pytest.importorskip("onnx")
    old, new, other = (exported(tmp_path / name, name, slope) for name, slope in (("x", 0.1), ("y", 0.1), ("z", 0.2)))
    for folder, name in ((old, "x"), (new, "y"), (other, "x")):
        node = onnx.helper.make_node("Relu", ["data"], [f"{name}_out"], name=name)
        end = onnx.helper.make_node("Identity", [f"{name}_out"], ["scores"])
        ends = [onnx.helper.make_tensor_value_info(side, 1, [1]) for side in ("data", "scores")]
        graph = onnx.helper.make_graph([node, end], "net", ends[:1], ends[1:])
        onnx.save(onnx.helper.make_model(graph), str(folder / "net.onnx"))
    assert compare_exports(old, new) == "net-symbol.json, net-0000.params, net.onnx"
    assert symbol(old / "net-symbol.json") == symbol(new / "net-symbol.json")
    with pytest.raises(Difference, match="net-symbol.json differs"):
        compare_exports(old, other)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "name two checkouts"),
        ([str(ROOT)], "name two checkouts"),
        ([str(ROOT), str(ROOT / "tests")], "tests is no checkout of this project"),
        ([str(ROOT), str(ROOT), "--keep", str(ROOT)], "is there already"),
        ([str(ROOT), str(ROOT), "--digests", "x"], "--digests takes neither"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out
