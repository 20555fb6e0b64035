"""A study of seconds: drawn data at 64 px, one epoch, a teacher and two arms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

FILES = {
    "base.yaml": """
inherits: demo
data: {root: data, size: 64, demo: {train: 8, test: 4}}
teacher: {backbone: mobilenet0.25}
distill: {head: inherit, gan: {width: 4}}
stages:
  teacher: {epochs: 1}
  baseline: {epochs: 1}
  baseline_finetune: null
  adversarial: {epochs: 1, distillers: [gan]}
  finetune: null
train: {batch_size: 4, log_interval: 1, num_workers: 0}
""",
    "large.yaml": "inherits: base.yaml\nstages: {baseline: null, adversarial: null}\n",
    "none.yaml": "inherits: base.yaml\nstages: {teacher: null, adversarial: null}\n",
    "gan.yaml": "inherits: base.yaml\nstages: {baseline: null}\n",
    "study.yaml": """
description: Does the adversary help?
arms: {none: none.yaml, gan: gan.yaml}
baseline: none
seeds: [1, 2]
teacher: {recipe: large.yaml, seed: 3}
""",
}


@pytest.fixture(scope="session")
def write_study() -> Callable[[Path], Path]:
    """`write_study(folder)` writes the study and its recipes into a folder and gives it back."""

    def write(folder: Path) -> Path:
        for name, text in FILES.items():
            (folder / name).write_text(text)
        return folder

    return write


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_study: Callable[[Path], Path]) -> Path:
    """The current folder, with the study in it."""
    monkeypatch.chdir(write_study(tmp_path))
    return tmp_path
