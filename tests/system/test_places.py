"""Real processes where output ends, locales lack characters, names are not UTF-8 and users have no home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gan_kd.compat import MOST_THREADS, tidy_threads
from gan_kd.data import demo
from gan_kd.recipe import load, to_yaml

ROOT = Path(__file__).resolve().parents[2]
#: In Latin-1, and in no locale of eight bits.
CLASSES = ("Würfel", "猫")
RECIPE = """\
inherits: demo
data: {dataset: folder, root: %s, train: [train], val: [test], classes: annotations, size: 64}
stages: {teacher: null, baseline: {epochs: 1}, baseline_finetune: null, adversarial: null, finetune: null}
train: {batch_size: 4, num_workers: 0, log_interval: 1}
"""
STARTS = [sys.executable, "-m", "gan_kd"]


def ran(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT, "timeout": 300, **options}
    return subprocess.run([*STARTS, *arguments], **given)


def sentence(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line that a command which failed says."""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn images of two classes whose names are not ASCII, and a recipe of them."""
    folder = tmp_path_factory.mktemp("data")
    demo.draw(folder / "drawn", train=8, test=4, seed=0)
    for file in (folder / "drawn/Annotations").iterdir():
        text = file.read_text(encoding="utf-8")
        for number, name in enumerate(demo.CLASSES):
            text = text.replace(f"<name>{name}</name>", f"<name>{CLASSES[number % 2]}</name>")
        file.write_text(text, encoding="utf-8")
    (folder / "small.yaml").write_text(RECIPE % (folder / "drawn"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a German of the nineties; of plain ASCII where that cannot be made."""
    place = tmp_path_factory.mktemp("locales")
    named = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    made = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(place / "de_DE.ISO-8859-1")]
    try:
        subprocess.run(made, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.CalledProcessError):
        return named
    return {**named, "LOCPATH": str(place), "LC_ALL": "de_DE.ISO-8859-1"}


def test_a_reader_that_ends_and_a_locale_without_the_characters(data: Path, latin: dict[str, str]) -> None:
    """As `train | head -3`: the run goes on to its end, and all of its files are UTF-8."""
    arguments = ["train", "--recipe", str(data / "small.yaml"), "--save-prefix", str(data / "runs")]
    with subprocess.Popen(
        [*STARTS, *arguments], cwd=ROOT, env=latin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        shown = [process.stdout.readline() for _ in range(3)]
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 0 and all(shown), said
    assert said.count("standard output cannot be written (Broken pipe)") == 1 and "Traceback" not in said
    run = data / "runs/small/233"
    assert (run / "baseline/best.params").is_file() and (run / "report/report.html").is_file()
    assert "猫=" in (run / "train.log").read_text(encoding="utf-8")
    for command in (["status", run], ["eval", "--params", run / "baseline/best.params"], ["report", run]):
        done = ran(*map(str, command), env=latin)
        assert done.returncode == 0, done.stderr.decode()
        if command[0] == "eval":
            assert b"\\u732b" in done.stdout
    resumed = ran(*arguments, "--resume", env=latin)
    assert resumed.returncode == 0, resumed.stderr.decode()


@pytest.fixture(scope="module")
def homeless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user without HOME whom the system's list does not know."""
    folder = tmp_path_factory.mktemp("homeless")
    (folder / "sitecustomize.py").write_text(
        "import pwd\ndef unknown(uid):\n    raise KeyError(uid)\npwd.getpwuid = unknown\n", encoding="utf-8"
    )
    kept = {key: value for key, value in os.environ.items() if key not in ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME")}
    return {**kept, "PYTHONPATH": str(folder)}


def test_full_disks_behind_the_logs_and_names_that_are_no_text(
    data: Path, homeless: dict[str, str], tmp_path: Path
) -> None:
    """Trained, evaluated and detected in folders named in Latin-1, without a home, by a list of thread counts."""
    place = tmp_path / os.fsdecode(b"caf\xe9")
    run = place / "small/233"
    run.mkdir(parents=True)
    (run / "train.log").symlink_to("/dev/full")
    environment = {**homeless, "OMP_NUM_THREADS": "1,2"}
    with open("/dev/full", "wb") as full:
        done = ran("train", "--recipe", data / "small.yaml", "--save-prefix", place, env=environment, stdout=full)
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert said.count("standard output cannot be written (No space left on device)") == 1 and "Traceback" not in said
    assert said.count("train.log cannot be written (No space left on device); the run goes on") == 1
    params = run / "baseline/best.params"
    assert (run / "report/report.html").is_file()
    photos = place / "photos"
    photos.mkdir()
    for number, name in enumerate((b"a.jpg", b"\xe9.jpg", b"\xe9.png")):
        source = sorted((data / "drawn/JPEGImages").iterdir())[number]
        (photos / os.fsdecode(name)).write_bytes(source.read_bytes())
    out = place / os.fsdecode(b"\xe8")
    done = ran("detect", photos, "--params", params, "--out", out, "--threshold", "0", env=environment)
    assert done.returncode == 0, done.stderr.decode()
    pictures = {b"a.jpg", b"\xe9.jpg", b"\xe9.png"}
    assert {os.fsencode(name) for name in os.listdir(out)} == {*pictures, b"detections.json", b"images.json"}
    assert len(json.loads((out / "images.json").read_bytes())["images"]) == 3
    done = ran("eval", "--params", params, env=environment)
    assert done.returncode == 0, done.stderr.decode()


def test_results_that_cannot_be_shown(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = ran("recipes", stdout=full)
    assert done.returncode == 1 and "No space left on device" in sentence(done)
    closed = subprocess.run(
        [*STARTS, "recipes"], cwd=ROOT, stderr=subprocess.PIPE, timeout=60, preexec_fn=lambda: os.close(1)
    )
    assert closed.returncode == 0 and not closed.stderr


def test_results_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_bytes(to_yaml(load(data / "small.yaml")).encode())
    (run / "metrics.jsonl").touch()
    done = ran("report", run, "--out", tmp_path / "file/out")
    assert done.returncode == 1 and "Not a directory" in sentence(done)


def test_a_user_without_a_home(homeless: dict[str, str]) -> None:
    done = ran("check", "--recipe", "demo", "--set", "data.dataset=folder", "--set", "data.root=~/x", env=homeless)
    assert done.returncode == 2 and "~/x: this user has no home folder" in sentence(done)
    done = ran("download", "voc", env=homeless)
    assert done.returncode == 2 and "write the path in full" in sentence(done)
    done = ran("doctor", env=homeless)
    assert b"Traceback" not in done.stderr and b"no home" not in done.stderr


@pytest.mark.parametrize(
    "given, kept",
    [("4", "4"), ("3,2,1", "3"), (" 2 ", "2"), ("0", None), ("-1", None), ("2.5", None), ("many", None), ("", None),
     ("²", None), ("100000", str(MOST_THREADS)), ("9" * 5000, None)],
)  # fmt: skip
def test_numbers_of_threads_that_mxnet_does_not_read(given: str, kept: str | None, monkeypatch: Any) -> None:
    """It ends the process over a list, over words, and over a number beyond 32 bits."""
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    tidy_threads()
    assert os.environ.get("OMP_NUM_THREADS") == kept
