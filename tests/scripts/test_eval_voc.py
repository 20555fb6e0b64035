"""scripts/eval_voc.py as users start it, and what it says to wrong input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import pytest

from gan_kd.commands.evaluate import main
from gan_kd.detectors.saved import save_detector
from gan_kd.errors import UserError
from gan_kd.recipe import from_dict, to_yaml
from tests.rig import build_detector

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/eval_voc.py"
SIZE = 128
ANIMALS = ["cat", "cow", "dog", "horse", "sheep"]


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    """A run folder as training leaves it, with the first 12 val images of voc12-animals as its split."""
    folder = tmp_path_factory.mktemp("run")
    real, root = shared / "data/voc12-animals/VOC2012", folder / "data/VOC2012"
    (root / "ImageSets/Main").mkdir(parents=True)
    for name in ("JPEGImages", "Annotations"):
        (root / name).symlink_to(real / name)
    names = (real / "ImageSets/Main/val.txt").read_text().split()[:12]
    for split in ("train", "val"):
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(names) + "\n")
    recipe = from_dict(
        {
            "name": "few animals",
            "data": {"root": str(root.parent), "train": ["2012/train"], "val": ["2012/val"], "size": SIZE,
                     "classes": ANIMALS, "unknown_classes": "ignore"},
            "teacher": {"backbone": "mobilenet0.5", "init": "random"},
            "student": {"backbone": "mobilenet0.25", "init": "random"},
            "stages": {"plain": {"trains": "baseline", "epochs": 1}},
            "train": {"num_workers": 1},
        }
    )  # fmt: skip
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    mx.random.seed(0)
    meta = {
        "network": "baseline",
        "backbone": "mobilenet0.25",
        "size": SIZE,
        "classes": ANIMALS,
        "head": "own",
        "head_backbone": "mobilenet0.25",
        "adapters": False,
    }
    save_detector(build_detector("mobilenet0.25", SIZE, ANIMALS), folder / "baseline/best.params", meta)
    return folder


def start(*arguments, cwd):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_prints_and_writes_what_it_measured(run, tmp_path):
    params = run / "baseline/best.params"
    done = start("--params", params, "--json", "out.json", "--batch-size", 5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["network"], written["images"], written["recipe"]) == ("baseline", 12, "few animals")
    assert list(written["ap"]) == ANIMALS
    assert written["published"] is None
    for name, value in {**written["ap"], "mAP": written["map"]}.items():
        shown = "-" if value is None else f"{value:.2f}"
        assert [name, shown] in [line.split() for line in done.stdout.splitlines()]
    assert "no published figure for the baseline network of this recipe" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_mistake_is_one_line(run, tmp_path):
    done = start("--params", tmp_path / "absent.params", "--recipe", "demo", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "absent.params: no such file" in done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--recipe", "demmo"], "demo"),
        (["--set", "data.sizes=300"], "data.size"),
        (["--gpus", "99"], "99"),
        (["--contexts", "tpu:0"], "tpu:0"),
        (["--dataset-root", "nowhere"], "nowhere"),
        (["--json", "no/such/folder/out.json"], "folder is not there"),
        (["--set", "student.backbone=mobilenet0.75"], "another network"),
        (["--set", "data.size=256"], "trained at 128 px"),
        (["--batch-size", "none"], "eval.batch_size"),
    ],
)
def test_wrong_input_is_named(run, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        main(["--params", str(run / "baseline/best.params"), *arguments])
    assert caught.value.exit_code == 2


def test_a_file_outside_a_run_needs_its_recipe(run, tmp_path):
    lonely = tmp_path / "some/where/best.params"
    lonely.parent.mkdir(parents=True)
    lonely.write_bytes((run / "baseline/best.params").read_bytes())
    with pytest.raises(UserError, match="lies in no run folder: name its recipe"):
        main(["--params", str(lonely)])
