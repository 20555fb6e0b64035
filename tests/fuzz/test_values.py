"""Values of any type and size where a recipe, a command or the system has others: a result or a sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gan_kd.__main__ import main
from gan_kd.compat import MOST_THREADS, tidy_threads
from gan_kd.data import images
from gan_kd.errors import UserError
from gan_kd.recipe import from_dict, load, to_yaml
from gan_kd.recipe.convert import build
from gan_kd.recipe.load import parse_override
from gan_kd.study.schema import Study
from gan_kd.system.console import prepare_streams
from gan_kd.system.untrusted import file_within

EXAMPLES = 150  # of each test, the same ones at every call
DRAWN = 8 * EXAMPLES  # of all tests
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)  # as YAML gives them: more bits are refused there
    | st.sampled_from([2**63 - 1, -(2**63), 2**31, 0])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "..", "/", "../x", "1e999", "nan", "\ud800", "a\nb", "x" * 5000])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS, inner, max_size=4), max_leaves=12
)
DEMO = dataclasses.asdict(load("demo"))


def places(values: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every map and value in nested maps."""
    found = [path] if path else []
    for key, value in values.items() if isinstance(values, dict) else ():
        found += places(value, (*path, key))
    return found


def put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy with another value at that place."""
    rest = put(values[path[0]], path[1:], value) if path[1:] else value
    return {**values, path[0]: rest}


def sentence(function: Any, *arguments: Any) -> Any:
    """What a function gives, or None where it refuses; it must do that in one line."""
    try:
        return function(*arguments)
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) > 8
        return None


@SETTINGS
@given(st.sampled_from(places(DEMO)), VALUES)
def test_a_recipe(path, value):
    recipe = sentence(from_dict, put(DEMO, path, value))
    if recipe is not None:
        sentence(to_yaml, recipe)


@SETTINGS
@given(VALUES)
def test_a_study(value):
    study = {"arms": {"a": "demo"}, "baseline": "a", "seeds": [1]}
    for key in ("arms", "seeds", "teacher", "set", "search", "chosen_by", "decisive", "measure", "other"):
        sentence(partial(build, top=Study), Study, {**study, key: value})


@SETTINGS
@given(st.text(max_size=60) | st.text(alphabet="{}[]&*!|>-:#'\"% \n\t0x1.e_~<=,?", max_size=40))
def test_an_override(text):
    for override in (text, f"data.classes={text}"):
        sentence(parse_override, override)


@SETTINGS
@given(st.text(max_size=30) | st.text(alphabet="./\\a\0\n", max_size=12))
def test_a_name_never_leads_out_of_its_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "data"
    try:
        file = file_within(folder, name)
    except ValueError:
        return
    assert folder.resolve() in file.resolve().parents
    assert not file.exists()
    json.dumps(str(file)).encode()


@pytest.mark.parametrize("name", ["a.jpg", "train/a b.jpg", "ä/ö.png", "..a", "a..jpg", "./a"])
def test_names_that_are_taken(tmp_path, name):
    assert file_within(tmp_path, name) == tmp_path / name


COMMANDS = ("check", "recipes", "status", "report", "eval", "detect", "export")  # those that read
FLAGS = (
    "--params", "--recipe", "--set", "--json", "--gpus", "--contexts", "--batch-size", "-j", "--threshold", "--out",
    "--format", "--images", "--show", "--epochs", "--lr", "--data-shape", "--seed", "--dataset-root", "-q", "--",
)  # fmt: skip
TEXTS = (
    st.text(max_size=12)
    | st.integers().map(str)
    | st.sampled_from(["", "-1", "nan", "1e999", "9" * 400, "gpu:0", "cpu:-1", "~", "~nobody/x", "/dev/null", "\udce9"])
)


@SETTINGS
@given(st.sampled_from(COMMANDS), st.lists(st.sampled_from(FLAGS) | TEXTS, max_size=6))
def test_words_behind_a_command(tmp_path, monkeypatch, command, words):
    """An exit code and at most a line, or the usage; nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        assert main([command, *words]) in (0, 1, 2)
        assert said.getvalue().count("\n") <= 1
    assert not list(tmp_path.iterdir())


@SETTINGS
@given(st.binary(min_size=1, max_size=60).filter(lambda name: not {b"/"[0], 0} & {*name}))
def test_an_image_of_any_name(tmp_path_factory, name):
    """Whatever bytes the system has for it."""
    path = tmp_path_factory.getbasetemp() / os.fsdecode(name + b".png")
    path.write_bytes(cv2.imencode(".png", np.zeros((4, 6, 3), np.uint8))[1].tobytes())
    with images.strict():
        assert images.verified_size(path) == (6, 4)
    assert images.read(path).shape == (4, 6, 3)
    path.unlink()


@SETTINGS
@given(st.sampled_from(["ascii", "latin-1", "utf-8", "cp437", "utf-16", "shift_jis"]), st.text() | st.just("\udce9"))
def test_any_text_on_any_screen(encoding, text):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with contextlib.redirect_stdout(stream):
        prepare_streams()
        print(text, flush=True)


@SETTINGS
@given(st.text(max_size=8) | st.integers().map(str) | st.text(alphabet=" ,0123456789-+.", max_size=12))
def test_any_number_of_threads(text):
    before = os.environ.get("OMP_NUM_THREADS")
    try:
        os.environ["OMP_NUM_THREADS"] = text.replace("\0", "").encode(errors="ignore").decode()
        tidy_threads()
        assert 1 <= int(os.environ.get("OMP_NUM_THREADS", "1")) <= MOST_THREADS
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)
        os.environ.update({} if before is None else {"OMP_NUM_THREADS": before})


NOT_TAKEN = ["", ".", "/a", "../a", "a/../../b", "a/..", "a\0", "a\nb", "\ud800", "x" * 251, "a/" * 501]


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_names_that_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="it "):
        file_within(tmp_path, name)
