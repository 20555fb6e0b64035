"""README's tutorial on data of one's own, typed as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPLITS = {"train": 24, "val": 6, "test": 6}  # images, to be done in a minute


def commands() -> str:
    """The block of README's section, with one epoch a training."""
    section = (ROOT / "README.md").read_text("utf-8").partition("\n## Your own data\n")[2]
    block = section.split("```")[1]
    assert block.count("--data.on-error skip") == 2
    block = block.replace("--data.on-error skip", "--data.on-error skip --epochs 1")
    # Three steps at the recipe's rate leave BatchNorm with statistics that ONNX and MXNet round apart.
    return block.replace("--set student.init", "--set stages.distilled.optimizer.lr=0.001 --set student.init")


def some_of(bccd: Path, folder: Path) -> None:
    """A folder in VOC's layout with the first images of each split; what they hold is linked, not copied."""
    for name in ("JPEGImages", "Annotations"):
        (folder / name).symlink_to(bccd / name)
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, count in SPLITS.items():
        names = (bccd / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        (lists / f"{split}.txt").write_text("\n".join(names[:count]))


@pytest.mark.slow
def test_the_tutorial(shared, tmp_path):
    folder = tmp_path / "shared" / "data" / "bccd" / "VOC2012"
    folder.mkdir(parents=True)
    some_of(shared / "data" / "bccd" / "VOC2012", folder)
    (tmp_path / "shared" / "weights").symlink_to(shared / "weights")
    here = tmp_path / "project"
    (here / ".venv" / "bin").mkdir(parents=True)
    python = here / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", "-e", "-c", commands()],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = here / "runs" / "own" / "voc" / "233"
    for network in ("teacher", "baseline", "distilled"):
        assert re.search(rf"^{network} mAP=\d", done.stdout, re.M), done.stdout
        assert (run / network / "eval.json").is_file()
    assert (here / "my-results" / "own-voc" / "report.html").is_file()
    assert {path.suffix for path in (here / "my-product").iterdir()} >= {".onnx", ".params", ".json"}
