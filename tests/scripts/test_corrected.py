"""The small study's comparisons anew from its committed logs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "small-study"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/corrected.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    return shutil.copytree(PUBLISHED, tmp_path / "copies", ignore=shutil.ignore_patterns("corrected.*"))


def test_the_page_is_the_committed_one(copies: Path) -> None:
    done = run("small", str(copies))
    assert done.returncode == 0, done.stderr
    page = (copies / "corrected.md").read_text().replace(str(copies), "results/small-study")
    assert page == (PUBLISHED / "corrected.md").read_text()
    assert "| 1 | 30.39 | 36.88 | 36.45 | 37.86 | 38.08 | 37.46 |" in page


def test_a_run_cut_short_is_no_number(copies: Path) -> None:
    log = copies / "l2" / "seed-3" / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    assert run("small", str(copies)).returncode == 0
    page = (copies / "corrected.md").read_text()
    assert "Over the seeds 1, 2, which all 6 arms here have." in page and "| 36.01 | – |" in page


def test_what_is_not_there_is_one_sentence(copies: Path) -> None:
    shutil.rmtree(copies / "l2" / "seed-3")
    done = run("small", str(copies))
    assert done.returncode == 2 and "is not a run folder: no recipe.yaml" in done.stderr
    assert run("gone", str(copies)).returncode == 2 and "Traceback" not in done.stderr
