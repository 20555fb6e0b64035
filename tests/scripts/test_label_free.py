"""scripts/label_free.py on drawn images: what it writes, that only backbone and adapters learn, and wrong use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gan_kd.detectors.saved import describe, save_detector
from gan_kd.recipe import load
from gan_kd.training.networks import build_teacher

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [
    "data.size=64", "data.demo.train=8", "data.demo.test=4", "train.batch_size=4", "distill.adapter=relu",
    "stages={baseline: null}",
]  # fmt: skip


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """A teacher's file of random weights and where the images are drawn."""
    folder = tmp_path_factory.mktemp("label-free")
    recipe = load("demo", SETTINGS)
    teacher = build_teacher(recipe, ("circle", "square", "star", "triangle"))
    meta = {
        **describe(recipe, "teacher", teacher),
        "stage": None,
        "epoch": 0,
        "map": 0.0,
        "recipe": "demo",
        "seed": 233,
    }
    save_detector(teacher, folder / "teacher.params", meta)
    return [f"data.root={folder / 'drawn'}", f"teacher.weights={folder / 'teacher.params'}", *SETTINGS[:5]]


def label_free(*arguments, settings=()):
    command = [sys.executable, str(ROOT / "scripts/label_free.py"), *arguments]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_every_method_has_its_row_its_curve_and_its_push(options, tmp_path):
    command = ["demo", "--steps", "2", "--seeds", "1", "--out", str(tmp_path)]
    (tmp_path / "label-free.json").write_text("{")  # damaged: written anew
    done = label_free(*command, "--methods", "cosine attention", settings=options)
    assert done.returncode == 0, done.stderr
    (kept,) = json.loads((tmp_path / "label-free.json").read_text())["rows"]
    done = label_free(*command, settings=options)  # goes on with the methods that are missing
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("L_conf") == 12
    found = json.loads((tmp_path / "label-free.json").read_text())
    assert len(found["rows"]) == 13 and found["images"] == 4 and kept in found["rows"]
    starts = {row["curve"][0]["conf"] for row in found["rows"]}
    assert len(starts) == 1  # the head is the teacher's and every method starts from one student
    for row in found["rows"]:
        assert [one["step"] for one in row["curve"]] == [0, 2]
        assert row["curve"][1]["conf"] != row["curve"][0]["conf"]
        assert all(-1.001 <= cosine <= 1.001 for cosine in row["cosine"]), row
        assert all(-0.001 <= share <= 1.001 for share in row["common"]), row
    text = (tmp_path / "label-free.md").read_text()
    assert "| outputs + standardised distance |" in text and "python scripts/label_free.py demo" in text
    assert (tmp_path / "label-free.png").stat().st_size > 1000
    assert Path(done.stdout.split("report: ")[1].strip()).is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["demo"], "recipe demo has no trained teacher: name one with --set teacher.weights=FILE"),
        (["demo", "--steps", "0"], "--steps 0 has to be at least 1"),
        (["demo", "--seeds", "1,a"], "--seeds 1,a: write whole numbers with commas between"),
        (["demo", "--seeds", "1,1", "--set", "teacher.weights=x.params"], "--seeds 1,1: each seed once"),
        (["demo", "--methods", "magic"], "--methods: there is no method 'magic' (one of: as written"),
        (["nothing"], "there is no recipe nothing"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, sentence):
    done = label_free(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}") and done.stderr.count("\n") == 1
