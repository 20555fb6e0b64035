"""The row that scripts/train_voc.sh and scripts/train_coco.sh are given."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The scripts and recipes with an environment whose Python prints what it is started with."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copytree(ROOT / "gan_kd/recipes", folder / "gan_kd/recipes")
    (folder / "scripts/setup.sh").write_text("exit 0\n")
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    return folder


def start(copy, script, *arguments):
    command = ["bash", str(copy / "scripts" / script), *arguments]
    return subprocess.run(command, cwd=copy.parent, capture_output=True, text=True, timeout=60, env=os.environ)


@pytest.mark.parametrize(
    "script, arguments, recipe, passed",
    [
        ("train_voc.sh", [], "voc/mobilenet1.0-resnet50_v1", []),
        ("train_voc.sh", ["resnet18_v1"], "voc/resnet18_v1", []),
        ("train_voc.sh", ["teacher-vgg16_atrous", "--gpus", "0,1"], "voc/teacher-vgg16_atrous", ["--gpus", "0,1"]),
        ("train_voc.sh", ["faster_rcnn/resnet50_v1b", "--seed", "1"], "faster_rcnn/resnet50_v1b", ["--seed", "1"]),
        ("train_voc.sh", ["yolo3/voc-mobilenet1.0"], "yolo3/voc-mobilenet1.0", []),
        ("train_voc.sh", ["--demo", "--seed", "1"], "demo", ["--seed", "1"]),
        ("train_voc.sh", ["--set", "data.root=a b"], "voc/mobilenet1.0-resnet50_v1", ["--set", "data.root=a b"]),
        ("train_coco.sh", [], "coco/mobilenet1.0-resnet50_v1", []),
        ("train_coco.sh", ["mobilenet0.75", "--resume"], "coco/mobilenet0.75", ["--resume"]),
        ("train_coco.sh", ["yolo3/coco-mobilenet1.0", "-q"], "yolo3/coco-mobilenet1.0", ["-q"]),
        ("train_coco.sh", ["--gpus", "0"], "coco/mobilenet1.0-resnet50_v1", ["--gpus", "0"]),
    ],
)
def test_a_row_is_its_recipe_and_options_pass_through(copy, script, arguments, recipe, passed):
    done = start(copy, script, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["-m", "gan_kd", "train", "--recipe", recipe, *passed]


@pytest.mark.parametrize(
    "script, arguments, message",
    [
        ("train_voc.sh", ["resnet19"], "there is no row resnet19; there are mobilenet1.0, mobilenet1.0-resnet101_v2, "),
        ("train_voc.sh", ["faster_rcnn/resnet18"], "there is no row resnet18; there are fgfi-resnet50_v1b, "),
        ("train_voc.sh", ["yolo3/coco-mobilenet1.0"], "there is no row coco-mobilenet1.0; there are voc-"),
        ("train_coco.sh", ["yolo3/demo"], "there is no row demo; there are coco-mobilenet1.0, "),
        ("train_coco.sh", ["resnet18_v1"], "there is no row resnet18_v1; there are mobilenet0.75, "),
        ("train_coco.sh", ["base"], "there is no row base; there are "),
        ("train_voc.sh", [""], "there is no row ; there are "),
        ("train_voc.sh", ["resnet18_v1", "--demo"], "--demo is a recipe of its own; leave out resnet18_v1 or --demo"),
    ],
)
def test_a_wrong_row_is_one_sentence_before_anything_is_set_up(copy, script, arguments, message):
    done = start(copy, script, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
