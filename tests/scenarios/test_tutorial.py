"""The tutorial of docs/your-data.md, typed as it stands there: a folder is drawn, and ends as a deployed student."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def commands() -> str:
    """The blocks that draw the folder and go through it, with fewer images and one epoch a training."""
    page = (ROOT / "docs" / "your-data.md").read_text("utf-8")
    folder, tutorial = (page.partition(f"\n## {title}\n")[2].split("```")[1] for title in ("A folder", "Tutorial"))
    assert tutorial.count("train --recipe") == 2 and "{train: 200, test: 80}" in folder
    folder = folder.replace("bash scripts/setup.sh\n", "").replace("{train: 200, test: 80}", "{train: 24, test: 8}")
    weights = ROOT.parent / "shared" / "weights"
    local = f"--set teacher.init={weights}/mobilenet1.0.params --set student.init={weights}/mobilenet0.25.params"
    tutorial = re.sub(r"train --recipe (\S+)", rf"train --recipe \1 --epochs 1 {local}", tutorial)
    # Three steps at the recipe's rate leave BatchNorm with statistics that ONNX and MXNet round apart.
    return folder + tutorial.replace(
        "--set teacher.weights", "--set stages.distilled.optimizer.lr=0.001 --set teacher.weights"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_the_tutorial(tmp_path: Path) -> None:
    environment = tmp_path / ".venv" / "bin"
    environment.mkdir(parents=True)
    python = environment / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (environment / "activate").write_text(f"PATH={environment}:$PATH\n")
    done = subprocess.run(
        ["bash", "-e", "-c", commands()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "own" / "voc" / "233"
    for network in ("teacher", "baseline", "distilled"):
        assert re.search(rf"^{network} mAP=\d", done.stdout, re.M), done.stdout
        assert (run / network / "eval.json").is_file()
    assert (tmp_path / "my-results" / "own-voc" / "report.html").is_file()
    assert len(json.loads((tmp_path / "detected" / "images.json").read_text())["images"]) == 32
    assert {path.suffix for path in (tmp_path / "my-product").iterdir()} >= {".onnx", ".params", ".json"}
