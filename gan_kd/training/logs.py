"""What a run tells: the log in GluonCV's line format and metrics.jsonl."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mxnet.ndarray import NDArray

from gan_kd.distributed.cluster import here
from gan_kd.errors import Diverged, RunError
from gan_kd.system.console import LogFile
from gan_kd.system.files import sync
from gan_kd.system.strict_json import dumps
from gan_kd.training.board import Board

#: GluonCV's names in its log lines, for those of our losses that it has too.
LOG_NAMES = {"conf": "CrossEntropy", "loc": "SmoothL1"}
#: What metrics.jsonl keeps beside the losses: D's scores.
SCORES = ("critic_real", "critic_fake")

log = logging.getLogger("gan_kd")


def log_to(path: Path) -> None:
    """Append the package's log lines to `path`, from INFO on; `gan_kd.system.console.screen` shows them.

    RunError where it cannot be opened; what cannot be written later is told of, and nothing more.
    """
    close_log()
    try:
        file = LogFile(str(path))
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; choose another --save-prefix") from error
    file.setLevel(logging.INFO)
    log.addHandler(file)


def close_log() -> None:
    """Let go of the file."""
    for handler in log.handlers[:]:
        if isinstance(handler, logging.FileHandler):
            log.removeHandler(handler)
            handler.close()


class NotFinite(Diverged):
    """A loss is nan or infinite: in which batch (they count from 1), and all losses of that batch by name."""

    def __init__(self, batch: int, losses: dict[str, float]) -> None:
        self.batch, self.losses = batch, losses
        self.name, self.value = next((n, v) for n, v in losses.items() if not math.isfinite(v))
        super().__init__(f"the loss {self.name!r} is {self.value} in batch {batch}")


class MetricsFile:
    """metrics.jsonl: a JSON object a line; without times, so that a resumed run's equals the undisturbed one's."""

    def __init__(self, path: Path, keep: int, board: Board | None = None) -> None:
        """Go on after the first `keep` bytes; what a killed run wrote after its last checkpoint is dropped.

        board: gets every record too. Of several workers the first one writes. RunError where fewer bytes are there.
        """
        self.path, self.board = path, board
        if not here().first:
            return
        path.touch()
        there = path.stat().st_size
        if there < keep:
            raise RunError(
                f"{path} has {there} bytes, but {keep} when the last checkpoint was saved: put the file back, or start "
                "a new run with another --save-prefix"
            )
        with open(path, "r+b") as stream:
            stream.truncate(keep)

    def synced_bytes(self) -> int:
        """Length of the file, for the checkpoint that is written next; so much of it is on the disk."""
        sync(self.path)
        return self.path.stat().st_size

    def write(self, record: dict[str, Any]) -> None:
        """Append one line."""
        if not here().first:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(dumps(record) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}; make room and go on with --resume") from error
        if self.board is not None:
            self.board.write(record)


class Interval:
    """Means of the losses since the last log line.

    Losses stay on the devices until they are asked for, so that the batch loop does not wait for them.
    """

    #: Batches that may be under way; more would let a fast loader fill the memory with work not yet done.
    AHEAD = 2

    def __init__(self, sums: dict[str, float] | None = None, count: int = 0) -> None:
        self.sums = dict(sums or {})
        self.count = count
        self._waiting: list[tuple[int, dict[str, list[NDArray]]]] = []

    def add(self, batch: int, losses: dict[str, list[NDArray]]) -> None:
        """Take the losses of batch number `batch`; waits for the one `AHEAD` batches before it, not for this."""
        self._waiting.append((batch, losses))
        if len(self._waiting) > self.AHEAD:
            for parts in self._waiting[-1 - self.AHEAD][1].values():
                for part in parts:
                    part.wait_to_read()

    def settle(self) -> None:
        """Read what is still on the devices. NotFinite for the first batch with a loss that is not finite."""
        for batch, losses in self._waiting:
            shares = [sum(float(part.asscalar()) for part in parts) for parts in losses.values()]
            values = dict(zip(losses, here().total(shares)))
            if not all(map(math.isfinite, values.values())):
                raise NotFinite(batch, values)
            for name, value in values.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.count += 1
        self._waiting.clear()

    def means(self) -> dict[str, float]:
        """Mean of each loss; empty where nothing was measured."""
        self.settle()
        return {name: value / self.count for name, value in self.sums.items()}

    def clear(self) -> None:
        """Start the next interval."""
        self.sums, self.count = {}, 0


def in_words(means: dict[str, float]) -> str:
    """Losses as GluonCV's log lines write them."""
    return ", ".join(f"{LOG_NAMES.get(name, name)}={value:.3f}" for name, value in means.items())


def map_words(found: dict[str, list[float]], places: Sequence[str] = ()) -> str:
    """Lists of one number a map, three digits each; where the maps stand first, if it is told."""
    where = [f"places={' '.join(places)}"] if places else []
    return ", ".join(
        where + [f"{name}={' '.join(f'{value:.3g}' for value in values)}" for name, values in found.items()]
    )


def train_record(means: dict[str, float], **position: Any) -> dict[str, Any]:
    """A metrics.jsonl line for an interval of training."""
    losses = {name: value for name, value in means.items() if name not in SCORES}
    scores = {name: means[name] for name in SCORES if name in means}
    return {"kind": "train", **position, "losses": losses, **scores}
