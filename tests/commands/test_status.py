"""`status`: every state that a run folder can be in, each one line, and nothing heavy to load."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gan_kd import __main__ as program
from gan_kd.commands.status import LATEST, find, main, read_status
from gan_kd.errors import UsageError
from gan_kd.report.single import EVIDENCE
from tests.report.conftest import write_run

ROOT = Path(__file__).resolve().parents[2]
#: 40 batches of 16 images an epoch, 4 epochs a stage, as tests/report/conftest.py has them.
EPOCH = 640


def cut(folder: Path, stage: str, epoch: int, batch: int) -> None:
    """Take the run back to the moment after a batch."""
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines]
    wanted = (stage, epoch, batch)
    last = next(k for k, r in enumerate(records) if (r["stage"], r["epoch"], r.get("batch")) == wanted)
    (folder / "metrics.jsonl").write_text("".join(lines[: last + 1]))
    for name in ("teacher", "baseline", "distilled"):
        (folder / name / "eval.json").unlink()


def log(folder: Path, *speeds: tuple[str, float], last: str = "") -> None:
    lines = [
        f"[Epoch 1][Batch {k}], Stage: {stage}, Speed: {speed:.3f} samples/sec, lr: 0.001, CrossEntropy=1.000"
        for k, (stage, speed) in enumerate(speeds, 1)
    ]
    (folder / "train.log").write_text("\n".join([*lines, "[Epoch 1] Training cost: 12.0", last]) + "\n")


def test_a_finished_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    log(folder, ("finetune", 20.0))
    status = read_status(folder)
    assert (status.state, status.recipe, status.seed) == ("finished", "mini/small-large", 233)
    assert (status.stage, status.stages, status.stage_name) == (4, 4, "finetune")
    assert (status.epoch, status.epochs, status.images_per_s, status.seconds_left) == (4, 4, 20.0, None)
    for name, value in status.best.items():
        assert value == json.loads((folder / name / "eval.json").read_text())["map"]
    assert list(status.best) == ["teacher", "baseline", "distilled"] and status.problems == []


def test_a_run_is_running_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    cut(folder, "adversarial", 2, 10)
    log(folder, ("baseline", 80.0), *[("adversarial", speed) for speed in (1.0, *[10.0] * (LATEST - 1), 1000.0)])
    with open(folder / ".lock", "w") as lock:
        assert read_status(folder).state == "interrupted"
        fcntl.flock(lock, fcntl.LOCK_EX)
        status = read_status(folder)
    assert read_status(folder).state == "interrupted"
    assert (status.state, status.stage, status.stage_name, status.epoch) == ("running", 3, "adversarial", 2)
    # A quarter of the second epoch is done: 2.75 of this stage, four of the next at the same speed.
    assert status.images_per_s == 10.0 and status.seconds_left == pytest.approx(6.75 * EPOCH / 10)
    assert status.best["distilled"] < status.best["baseline"] < 70  # the best of the training log


def test_reading_a_lock_does_not_hold_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    with open(folder / ".lock", "w") as lock:
        read_status(folder)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_ctrl_c_and_a_crash_are_told_apart(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    cut(folder, "teacher", 1, 20)
    log(folder, ("teacher", 10.0), last="stopped and saved; go on with: the same command and --resume")
    status = read_status(folder)
    assert (status.state, status.epoch) == ("stopped", 1)
    assert status.seconds_left is None  # how many batches an epoch has is not known yet
    log(folder, ("teacher", 10.0), last="stopped and saved; go on\n[Epoch 1][Batch 6], resumed and killed")
    assert read_status(folder).state == "interrupted"


def test_a_warm_up_of_ones_own_distiller_is_counted_without_importing_it(tmp_path: Path) -> None:
    """As the run noted it; the longer one of a stage counts."""
    folder = write_run(tmp_path)
    text = (folder / "recipe.yaml").read_text().replace("- gan", "- gan\n    - my_methods.Style")
    (folder / "recipe.yaml").write_text(f"{text}distill:\n  gan:\n    warmup_epochs: 1\n")
    cut(folder, "baseline", 4, 40)
    log(folder, ("baseline", 10.0))
    assert read_status(folder).seconds_left == pytest.approx((1 + 4 + 4) * EPOCH / 10)
    noted = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps({**noted, "warmup_epochs": {"my_methods.Style": 3}}))
    assert read_status(folder).seconds_left == pytest.approx((3 + 4 + 4) * EPOCH / 10)


def test_a_warm_up_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_run(tmp_path)
    text = (folder / "recipe.yaml").read_text() + "distill:\n  gan:\n    warmup_epochs: 2\n"
    (folder / "recipe.yaml").write_text(text)
    cut(folder, "baseline", 4, 40)
    log(folder, ("baseline", 10.0))
    assert read_status(folder).seconds_left == pytest.approx((2 + 4 + 4) * EPOCH / 10)
    record = {"kind": "train", "stage": "adversarial", "trains": "distilled", "epoch": -1, "batch": 20, "step": 20}
    with open(folder / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps(record) + "\n")
    assert read_status(folder).seconds_left == pytest.approx((1.5 + 4 + 4) * EPOCH / 10)
    main([str(tmp_path)])
    assert "3/4 adversarial  warm-up" in capsys.readouterr().out


def break_recipe(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("name: [")


def break_stages(folder: Path) -> None:
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("trains: teacher", "trained: teacher"))


def break_metrics(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text('{"kind": "train", "trains": "teacher", "stage": "teacher"}\n')


def break_log(folder: Path) -> None:
    (folder / "train.log").unlink()
    (folder / "train.log").mkdir()


def only_the_lock(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / ".lock").touch()


@pytest.mark.parametrize("damage", [break_recipe, break_stages, break_metrics, break_log, only_the_lock])
def test_a_damaged_run_is_one_line_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture, damage: Any
) -> None:
    write_run(tmp_path, seed=1)
    damage(write_run(tmp_path, seed=2))
    assert main([str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[1].split()[1] == "finished" and lines[2].split()[1] == "damaged"
    assert str(tmp_path / "runs" / "mini" / "small-large" / "2") == lines[2].split()[0]


def test_what_can_be_read_of_a_run_is_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (folder / "baseline" / "eval.json").write_text("{")
    with open(folder / "metrics.jsonl", "a") as stream:
        stream.write('{"kind": "train", "tra')  # cut short by a kill
    status = read_status(folder)
    assert status.state == "interrupted" and set(status.best) == {"teacher", "baseline", "distilled"}
    assert status.problems == ["baseline/eval.json could not be read and is left out"]


def test_empty_folders(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path)]) == 0 and capsys.readouterr().out == f"no run in {tmp_path}\n"
    assert main([str(tmp_path), "--json"]) == 0 and json.loads(capsys.readouterr().out) == []
    (tmp_path / "demo" / "233").mkdir(parents=True)
    main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == [str(tmp_path / "demo" / "233"), "empty"]
    with pytest.raises(UsageError, match="is not a folder"):
        main([str(tmp_path / "none")])


def test_all_runs_of_a_study_and_no_copies(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = [write_run(tmp_path, seed=seed) for seed in (1, 2)]
    (tmp_path / "runs" / "studies" / "small").mkdir(parents=True)
    (tmp_path / "runs" / "studies" / "small" / ".lock").touch()
    copy = tmp_path / "runs" / "results" / "mini-small-large" / "seed-1"
    copy.mkdir(parents=True)
    for file in EVIDENCE:
        shutil.copyfile(runs[0] / file, copy / file)
    assert list(find([tmp_path / "runs"])) == runs
    assert list(find([copy])) == [copy]
    assert program.main(["status", str(tmp_path / "runs"), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["run"], one["seed"], one["state"]) for one in listed] == [
        (str(folder), seed, "finished") for folder, seed in zip(runs, (1, 2))
    ]


def test_nothing_heavy_is_loaded() -> None:
    heavy = "[name for name in ('mxnet', 'numpy', 'cv2') if name in sys.modules]"
    text = f"import gan_kd.commands.status, sys; print({heavy})"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
