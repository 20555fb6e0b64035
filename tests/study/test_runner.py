"""Whole studies by the command line: undisturbed, killed at several moments, stopped, failing, refused."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gan_kd.errors import UsageError
from gan_kd.study.plan import make_plan
from gan_kd.study.record import take_up
from gan_kd.study.runner import _shares
from gan_kd.system.shell import command_line

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
Write = Callable[[Path], Path]
RUNS = ("large/3", "none/1", "gan/1")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gan_kd", "study", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def study(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, timeout=SECONDS
    )


def interrupted(folder: Path, number: int, until: Callable[[], bool]) -> tuple[str, int]:
    """Start the study and send it a signal as soon as `until` holds; its output and exit code."""
    process = subprocess.Popen(
        command("study.yaml"),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: until() or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(number)
    return process.communicate(timeout=SECONDS)[0], process.returncode


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def no_run_is_alive(folder: Path) -> bool:
    """The runs of a study hold its lock with it."""
    with open(folder / "runs" / "studies" / "study" / ".lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def results(folder: Path) -> dict[str, bytes]:
    """What a study leaves that must not depend on when it was killed."""
    files = [path for pattern in ("metrics.jsonl", "*/best.params") for path in (folder / "runs").rglob(pattern)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def state(run: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file of a run."""
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in run.rglob("*") if p.is_file()}


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def starts(folder: Path, run: str) -> list[str]:
    return json.loads((folder / "runs" / run / "environment.json").read_text())["commands"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, write_study: Write) -> tuple[Path, str]:
    """The study with its first seed alone: its folder and what it printed."""
    folder = write_study(tmp_path_factory.mktemp("undisturbed"))
    change(folder / "study.yaml", "[1, 2]", "[1]")
    done = study(folder, "study.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_every_run_has_its_lines_and_the_report_its_numbers(undisturbed: tuple[Path, str]) -> None:
    folder, output = undisturbed
    lines = output.splitlines()
    for k, name in enumerate(("teacher, seed 3", "none, seed 1", "gan, seed 1")):
        assert lines[2 * k] == f"[{k + 1}/3] {name}: started"
        assert lines[2 * k + 1].startswith(f"[{k + 1}/3] {name}: mAP ")
    assert "for the 2 left" in lines[1] and "left" not in lines[5] and len(lines) == 7
    page = (folder / lines[6].partition("report: ")[2]).with_suffix(".md").read_text()
    last = json.loads((folder / "runs/gan/1/distilled/eval.json").read_text())["last_map"]
    assert f"| [{last:.2f}](../../gan/1/report/report.md)" in page and str(folder) not in page
    assert len(starts(folder, "gan/1")) == 1


@pytest.mark.slow
def test_finished_runs_are_taken_up_from_their_records(undisturbed: tuple[Path, str], tmp_path: Path) -> None:
    """The runs' folders are gone, as on another machine; a record of other settings is not taken."""
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    before = study(tmp_path, "study.yaml", "--report-only", "--out", "kept")
    assert before.returncode == 0, before.stderr
    page = (tmp_path / "kept/report.md").read_text()
    assert not [path for path in (tmp_path / "kept").rglob("*.params")]
    shutil.rmtree(tmp_path / "runs")
    done = study(tmp_path, "study.yaml", "--out", "kept")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 finished runs are taken up from their records in kept" in done.stdout
    assert done.stdout.count("done before") == 3
    assert (tmp_path / "kept/report.md").read_text() == page
    shutil.rmtree(tmp_path / "runs")
    change(tmp_path / "base.yaml", "log_interval: 1", "log_interval: 2")
    assert take_up(make_plan(str(tmp_path / "study.yaml"), [], tmp_path / "runs"), tmp_path / "kept") == 0


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_equals_undisturbed(
    undisturbed: tuple[Path, str], tmp_path: Path, write_study: Write
) -> None:
    """Before the first checkpoint, in an epoch, and between evaluation and report."""
    change(write_study(tmp_path) / "study.yaml", "[1, 2]", "[1]")
    shutil.copytree(undisturbed[0] / "data", tmp_path / "data")
    runs = tmp_path / "runs"
    finished: dict[str, dict[str, tuple[int, int]]] = {}
    for moment in (
        lambda: (runs / "large/3/environment.json").exists(),
        lambda: any((runs / "none/1").glob("checkpoints/[0-9]*")),
        lambda: (runs / "gan/1/distilled/eval.json").exists(),
    ):
        _, code = interrupted(tmp_path, signal.SIGKILL, moment)
        assert code == -signal.SIGKILL
        wait_for(lambda: no_run_is_alive(tmp_path))
        finished |= {run: state(runs / run) for run in RUNS if (runs / run / "report" / "report.md").exists()}
    assert finished, "the study was killed after runs that were finished"
    done = study(tmp_path, "study.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(tmp_path) == results(undisturbed[0])
    for run, before in finished.items():
        assert state(runs / run) == before, f"{run} was touched again"
    assert len(starts(tmp_path, "large/3")) == 2 and starts(tmp_path, "large/3")[1].endswith("--resume")
    assert "done before, mAP" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number, last", [(signal.SIGINT, False), (signal.SIGHUP, True)])
def test_a_stop_saves_the_run_and_says_how_to_go_on(
    undisturbed: tuple[Path, str],
    tmp_path: Path,
    write_study: Write,
    number: int,
    last: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the first run of the study, and in its only one."""
    monkeypatch.chdir(tmp_path)  # where the study runs: the command is written for that folder
    write_study(tmp_path)
    if last:
        (tmp_path / "study.yaml").write_text("arms: {none: none.yaml}\nbaseline: none\nseeds: [1]\n")
    shutil.copytree(undisturbed[0] / "data", tmp_path / "data")
    run = tmp_path / "runs" / ("none/1" if last else "large/3")
    metrics = run / "metrics.jsonl"
    output, code = interrupted(tmp_path, number, lambda: metrics.exists() and metrics.stat().st_size > 0)
    assert code == 130, output
    assert output.splitlines()[-1] == f"stopped and saved; go on with: {command_line('study', 'study.yaml')}"
    assert output.count("started") == 1 and any(run.glob("checkpoints/[0-9]*"))


@pytest.mark.slow
def test_a_failed_run_is_named_and_the_others_go_on(undisturbed: tuple[Path, str], tmp_path: Path) -> None:
    """An arm whose batch is larger than the data, beside one that is done and one that is not."""
    folder = shutil.copytree(undisturbed[0], tmp_path / "copy")
    (folder / "bad.yaml").write_text("inherits: none.yaml\ntrain: {batch_size: 9}\n")
    (folder / "other.yaml").write_text("inherits: none.yaml\n")
    change(folder / "study.yaml", "{none", "{bad: bad.yaml, other: other.yaml, none")
    done = study(folder, "study.yaml", "--out", "results")
    assert done.returncode == 1
    assert "[2/5] bad, seed 1 failed: train.batch_size 9 is more than the 8 training images" in done.stdout
    assert "[3/5] other, seed 1: mAP" in done.stdout and "[4/5] none, seed 1: done before" in done.stdout
    assert "error: 1 of 5 runs failed:\n  bad, seed 1: train.batch_size 9" in done.stderr
    page = (folder / "results" / "report.md").read_text()
    assert "| bad | – | – | 0 of 1 |" in page
    assert (folder / "results/none/seed-1/environment.json").is_file()


@pytest.mark.slow
def test_arms_are_not_run_without_their_teacher(tmp_path: Path, write_study: Write) -> None:
    change(write_study(tmp_path) / "study.yaml", "[1, 2]", "[1]")
    done = study(tmp_path, "study.yaml", "--set", "train.batch_size=9")
    assert done.returncode == 1
    assert "[1/3] teacher, seed 3 failed: train.batch_size 9 is more" in done.stdout
    assert "[3/3] gan, seed 1 failed: not run, for its teacher failed" in done.stdout
    assert "[2/3] none, seed 1 failed: train.batch_size 9 is more" in done.stdout
    assert "error: 3 of 3 runs failed" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_search_is_killed_goes_on_and_chooses(tmp_path: Path, write_study: Write) -> None:
    """The first trial of the baseline diverges; the search's kill is in the middle of the second."""
    file = write_study(tmp_path) / "study.yaml"
    change(file, "[1, 2]", "[1]")
    diverging, plain = ("stages.baseline.optimizer.lr=1e30", "stages.baseline.optimizer.lr=0.001")
    trials = f"{{none: ['{diverging}', '{plain}'], gan: [distill.gan.width=4, distill.gan.width=8]}}"
    file.write_text(f"{file.read_text()}search: {{holdout: 4, seeds: [7], trials: {trials}}}\n")
    runs = tmp_path / "runs"
    interrupted(tmp_path, signal.SIGKILL, lambda: (runs / "none/search-2/7/environment.json").exists())
    wait_for(lambda: no_run_is_alive(tmp_path))
    before = state(runs / "large-inner/3")
    done = study(tmp_path, "study.yaml", "--out", "results")
    assert done.returncode == 0, done.stdout + done.stderr
    assert state(runs / "large-inner/3") == before, "the teacher of the search was touched again"
    assert "[1/5] search/teacher, seed 3: done before, mAP" in done.stdout
    assert "[2/5] search/none/trial-1, seed 7: diverged before, " in done.stdout
    assert "[3/5] search/none/trial-2, seed 7: resumed" in done.stdout
    assert f"settings chosen: none {plain}; gan distill.gan.width=" in done.stdout
    assert "[3/3] gan, seed 1: mAP" in done.stdout
    page = (tmp_path / "results" / "report.md").read_text()
    assert f"| none | 2 | {plain} |" in page and "[diverged](search/none/trial-1-seed-7/train.log)" in page
    again = study(tmp_path, "study.yaml", "--out", "results")
    assert again.returncode == 0 and "started" not in again.stdout and "resumed" not in again.stdout


def test_a_second_process_is_refused(tmp_path: Path, write_study: Write) -> None:
    write_study(tmp_path)
    lock = tmp_path / "runs" / "studies" / "study" / ".lock"
    lock.parent.mkdir(parents=True)
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = study(tmp_path, "study.yaml")
    assert done.returncode == 2 and "another process is running the study study in runs" in done.stderr


def test_a_report_that_cannot_be_written_is_found_before_the_first_run(tmp_path: Path, write_study: Write) -> None:
    write_study(tmp_path)
    done = study(tmp_path, "study.yaml", "--out", "study.yaml")
    assert done.returncode == 1 and "error: cannot write the report to study.yaml: File exists" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_nothing_to_report_and_no_study(tmp_path: Path, write_study: Write) -> None:
    write_study(tmp_path)
    done = study(tmp_path, "study.yaml", "--report-only")
    assert done.returncode == 2 and "runs holds no run of the study study" in done.stderr
    assert study(tmp_path).returncode == 0


def test_shares_of_the_cores() -> None:
    cores = os.sched_getaffinity(0)
    assert _shares(1) == [sorted(cores)]
    shares = _shares(len(cores))
    assert sorted(core for share in shares for core in share) == sorted(cores) and all(len(s) == 1 for s in shares)
    with pytest.raises(UsageError, match="--jobs 0 has to be from 1"):
        _shares(0)
