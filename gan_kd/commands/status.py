"""The command `status`: how far runs are, read from their folders; needs no MXNet and leaves the runs alone."""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gan_kd.errors import UsageError
from gan_kd.report.run import Run, is_copy, number, read_run
from gan_kd.system.strict_json import dumps

ABOUT = """List the runs in folders: state, stage, epoch, best mAP, and how long they still take.
States: running, finished, stopped (by Ctrl-C, saved), interrupted (killed or failed), empty, damaged. What was
stopped or interrupted goes on with `train` and --resume."""
LEFT = """left: the images still to train on, divided by images/s: the median of the last ten speeds that train.log has
of this stage, or of the one before until it has any. Later stages are counted at that speed, evaluations not at
all. It is known from the end of the first epoch on."""
HEAD = ("run", "state", "stage", "epoch", "best mAP, %", "images/s", "left", "")
SPEED = re.compile(r"^\[Epoch -?\d+\]\[Batch \d+\], Stage: (\S+), Speed: ([\d.]+) samples/sec", re.MULTILINE)
STOPPED = "stopped and saved"  # begins the last line of the log of a run that Ctrl-C ended
LATEST = 10
DASH = "–"


@dataclass
class Status:
    """How far one run is. What is not known is None.

    stage: its number from 1 of `stages`; epoch: the one under way or done last, 0 and below in the warm-up;
    best: mAP in percent by network; images_per_s: in training; seconds_left: of training, see `LEFT`.
    """

    run: str
    state: str
    recipe: str | None = None
    seed: int | None = None
    stage: int | None = None
    stages: int | None = None
    stage_name: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    best: dict[str, float] = field(default_factory=dict)
    images_per_s: float | None = None
    seconds_left: float | None = None
    problems: list[str] = field(default_factory=list)


def main(argv: Sequence[str]) -> int:
    """Print a line for each run of the folders that the arguments name, or JSON; 0."""
    parser = argparse.ArgumentParser(
        prog="python -m gan_kd status",
        description=ABOUT,
        epilog=LEFT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", type=Path, nargs="*", default=[Path("runs")], help="run folders, or folders of them (runs)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects instead")
    arguments = parser.parse_args(argv)
    found = [read_status(folder) for folder in find(arguments.runs)]
    if arguments.json:
        print(dumps([asdict(status) for status in found], indent=1))
    elif found:
        print("\n".join(_aligned([HEAD, *map(_row, found)])))
    else:
        print(f"no run in {', '.join(map(str, arguments.runs))}")
    return 0


def find(paths: Iterable[Path]) -> Iterator[Path]:
    """Folders that a training made, at or below `paths`, whole or not; UsageError where a path is no folder.

    A report's copies of a run's files are none, but where a path itself names them.
    """
    for path in dict.fromkeys(paths):
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder; name one like runs/RECIPE/SEED, or a folder of runs")
        for name, below, files in os.walk(path):
            below.sort()
            folder = Path(name)
            if _is_run(folder, below, files) and (folder == path or not is_copy(folder)):
                below.clear()
                yield folder


def _is_run(folder: Path, below: Sequence[str], files: Sequence[str]) -> bool:
    if folder.parent.name == "studies":
        return False  # a study's lock and report
    return bool({"recipe.yaml", "metrics.jsonl", ".lock"} & {*files}) or not (
        below or files or not folder.name.isdigit()
    )


def read_status(folder: Path) -> Status:
    """How far the run in `folder` is, whatever state its files are in."""
    running = _is_locked(folder)
    status = Status(str(folder), "running" if running else "empty")
    if running or any(folder.iterdir()):
        try:
            _read(status, folder, running)
        except (UsageError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            status.state = "running" if running else "damaged"
            text = str(error) if isinstance(error, UsageError) else f"files that do not fit together ({error!r})"
            status.problems.append(text.partition(";")[0])
    return status


def _is_locked(folder: Path) -> bool:
    """Whether a training holds the folder's lock, which is asked for only for an instant and shared."""
    try:
        with open(folder / ".lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _read(status: Status, folder: Path, running: bool) -> None:
    run = read_run(folder)
    status.recipe, status.seed, status.problems = run.name, run.seed, run.problems
    maps = {name: network.map for name, network in run.networks.items()}
    status.best = {name: value for name, value in maps.items() if value is not None}
    log = _log(folder)
    stopped = log.rstrip().rpartition("\n")[2].startswith(STOPPED)
    if not running:
        status.state = "finished" if run.finished else "stopped" if stopped else "interrupted"
    _place(status, run, log)


def _place(status: Status, run: Run, log: str) -> None:
    """Stage, epoch, speed and the time left."""
    stages = list(run.recipe["stages"].items())
    records = [_records(run, name, stage) for name, stage in stages]
    now = max((index for index, own in enumerate(records) if own), default=0)
    name, stage = stages[now]
    status.stage, status.stages, status.stage_name, status.epochs = now + 1, len(stages), name, int(stage["epochs"])
    speeds = [(of, float(speed)) for of, speed in SPEED.findall(log)]
    own = [speed for of, speed in speeds if of == name] or [speed for _, speed in speeds]
    status.images_per_s = statistics.median(own[-LATEST:]) if own else None
    if not records[now]:
        return
    last = records[now][-1]
    status.epoch = int(last["epoch"])
    batches = _batches([record for own in records for record in own])
    if status.state != "finished" and batches and status.images_per_s:
        epochs = 1 + status.epochs - status.epoch - last["batch"] / batches
        epochs += sum(_epochs(run, later) for _, later in stages[now + 1 :])
        status.seconds_left = epochs * batches * run.recipe["train"]["batch_size"] / status.images_per_s


def _records(run: Run, name: str, stage: dict[str, Any]) -> list[dict[str, Any]]:
    return [record for record in run.networks[stage["trains"]].trains if record["stage"] == name]


def _batches(records: Sequence[dict[str, Any]]) -> int | None:
    """Batches an epoch, of which the last is always logged; None as long as the first epoch goes on."""
    epochs = {(record["stage"], record["epoch"]) for record in records}
    return max(record["batch"] for record in records) if len(epochs) > 1 else None


def _epochs(run: Run, stage: dict[str, Any]) -> int:
    """Epochs of a stage that has not begun, the longest warm-up of its distillers included.

    Those of the user's own are as the run noted them at its start.
    """
    warmups = {**run.environment.get("warmup_epochs", {}), "gan": run.recipe["distill"]["gan"]["warmup_epochs"]}
    return stage["epochs"] + max((int(warmups.get(name, 0)) for name in stage["distillers"]), default=0)


def _log(folder: Path) -> str:
    try:
        return (folder / "train.log").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _row(status: Status) -> tuple[str, ...]:
    """The cells of a line, one for each word of `HEAD`."""
    epoch = DASH if status.epoch is None else "warm-up" if status.epoch < 1 else f"{status.epoch}/{status.epochs}"
    return (
        status.run,
        status.state,
        DASH if status.stage is None else f"{status.stage}/{status.stages} {status.stage_name}",
        epoch,
        ", ".join(f"{name} {value:.1f}" for name, value in status.best.items()) or DASH,
        DASH if number(status.images_per_s) is None else f"{status.images_per_s:.1f}",
        DASH if status.seconds_left is None else _duration(status.seconds_left),
        "; ".join(status.problems),
    )


def _duration(seconds: float) -> str:
    """Two units at most: `3 d 4 h`, `1 h 05 min`, `12 min`, `40 s`."""
    minutes = round(seconds / 60)
    if minutes >= 24 * 60:
        return f"{minutes // 1440} d {minutes % 1440 // 60} h"
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if seconds >= 90 else f"{max(0, round(seconds))} s"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns as wide as their widest cell; the last one ends where it ends."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
