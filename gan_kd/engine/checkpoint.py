"""Checkpoints: one folder each, complete, written beside and renamed.

There is no random state to keep: the order of the images and every augmentation are functions of (seed, stage, epoch,
index), and initial weights of (seed, network), so a position is enough to go on with the same numbers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mxnet as mx
from mxnet.ndarray import NDArray

from gan_kd.engine.files import sha256, write_folder
from gan_kd.errors import UsageError, printable
from gan_kd.models import params_file
from gan_kd.untrusted import read_json

ARRAYS, STATE = "arrays.params", "state.json"


def save(folder: Path, name: str, arrays: dict[str, NDArray], state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint `folder/name`, then delete all but the last `keep`; RunError where the disk is full.

    `arrays`: networks and optimisers by name. `state`: the position and what the log has seen, JSON values.
    """

    def fill(target: Path) -> None:
        mx.nd.save(str(target / ARRAYS), arrays)
        mx.nd.load(str(target / ARRAYS))  # MXNet does not report what it could not flush: only reading tells
        (target / STATE).write_text(json.dumps({**state, "sha256": sha256(target / ARRAYS)}, indent=1))

    write_folder(folder / name, fill)
    for old in _by_age(folder)[:-keep]:
        shutil.rmtree(old)
    return folder / name


def load_last(folder: Path) -> tuple[dict[str, NDArray], dict[str, Any]] | None:
    """Arrays and state of the newest checkpoint that is whole; None where there is none.

    A checkpoint whose arrays do not match their sha256 (a bad disk, an edited file) is passed over with a warning:
    MXNet itself reads a flipped bit without a word.
    """
    for path in reversed(_by_age(folder)):
        try:
            state = read_json(path / STATE)
            if state["sha256"] == sha256(path / ARRAYS):
                arrays = params_file.load(path / ARRAYS)
                if isinstance(arrays, dict):
                    return arrays, state
        except (OSError, ValueError, KeyError, TypeError, mx.MXNetError):
            pass
        logging.getLogger(__name__).warning("%s is damaged; going on from the checkpoint before it", path)
    return None


@contextlib.contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Turns what goes wrong where a checkpoint's contents are put back, whole but not of this run, into UsageError."""
    try:
        yield
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, mx.MXNetError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise UsageError(
            f"{folder}: the newest checkpoint is not of this run ({type(error).__name__}: {reason}); "
            "delete it to go on from the one before it"
        ) from error


def _by_age(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first: names begin with a running number."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.is_dir() and p.name[0].isdigit()), key=lambda p: p.name)
