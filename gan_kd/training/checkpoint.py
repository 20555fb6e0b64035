"""Checkpoints: one folder each, complete, written beside and renamed.

There is no random state to keep: the order of the images and every augmentation are functions of (seed, stage, epoch,
index), and initial weights of (seed, network), so a position is enough to go on with the same numbers.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.ndarray import NDArray

from gan_kd.errors import Diverged, UsageError, printable
from gan_kd.gluon import params_file
from gan_kd.recipe import Recipe, recipe_hash
from gan_kd.system.files import move_folder, sha256, write_folder, write_json
from gan_kd.system.strict_json import dumps
from gan_kd.system.untrusted import read_json

ARRAYS, STATE = "arrays.params", "state.json"


def origin(recipe: Recipe, classes: Sequence[str]) -> dict[str, Any]:
    """What a checkpoint is good for: it goes on with this recipe, MXNet and list of classes alone."""
    return {"recipe": recipe_hash(recipe), "mxnet": mx.__version__, "classes": list(classes)}


def require_finite(arrays: Mapping[str, NDArray], after: str) -> None:
    """Diverged where one of the arrays after so much training is not finite: it is not to be saved."""
    for name, array in arrays.items():
        # A loss can stay finite over weights that are not: ReLU turns nan into 0.
        if not np.isfinite(array.asnumpy()).all():
            raise Diverged(
                f"{name} holds nan or infinite values after {after}: training stops and the last checkpoint stays "
                "good; start a new run with a lower learning rate"
            )


def save(folder: Path, name: str, arrays: dict[str, NDArray], state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint `folder/name`, then delete all but the last `keep`; RunError where the disk is full.

    `arrays`: networks and optimisers by name. `state`: the position, what the log has seen, `origin`; JSON values.
    """

    def fill(target: Path) -> None:
        params_file.save(target / ARRAYS, arrays)
        (target / STATE).write_text(dumps({**state, "sha256": sha256(target / ARRAYS)}, indent=1), encoding="utf-8")

    write_folder(folder / name, fill)
    there = _by_age(folder)
    older = [path for path in there if path.name <= name]
    # What comes after it was damaged, or this run would have gone on from there.
    for other in (*older[:-keep], *there[len(older) :]):
        shutil.rmtree(other)
    return folder / name


def move_on(folder: Path, name: str, state: dict[str, Any]) -> Path:
    """Have the newest checkpoint stand for a later position with the same arrays; RunError where the disk is full.

    Between its two steps it has the new state under its old name, which is as good.
    """
    newest = _by_age(folder)[-1]
    digest = read_json(newest / STATE)["sha256"]
    write_json(newest / STATE, {**state, "sha256": digest})
    move_folder(newest, folder / name)
    return folder / name


def load_last(folder: Path, expected: dict[str, Any]) -> tuple[dict[str, NDArray], dict[str, Any]] | None:
    """Arrays and state of the newest checkpoint that is whole; None where there is none.

    A checkpoint whose arrays do not match their sha256 (a bad disk, an edited file) is passed over with a warning:
    MXNet itself reads a flipped bit without a word. UsageError where it is not of the `expected` origin. One without
    an origin is older than that note and is taken: its run's recipe.yaml has been compared.
    """
    for path in reversed(_by_age(folder)):
        try:
            state = read_json(path / STATE)
            if state["sha256"] == sha256(path / ARRAYS):
                _require(path, state.get("origin", expected), expected)
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


def _require(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, what, remedy in (
        ("recipe", "the recipe with the hash", "put the checkpoints of this run back"),
        ("mxnet", "MXNet", "install that version"),
        ("classes", "the classes", "restore the data's annotations, or the file that data.classes names"),
    ):
        if found[key] != expected[key]:
            there, here = (", ".join(v) if isinstance(v := one[key], list) else v for one in (found, expected))
            raise UsageError(
                f"{path} was saved with {what} {there}, but here it is {here}: {remedy}, or start a new run with "
                "another --save-prefix"
            )


def _by_age(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first: names begin with a running number."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.is_dir() and p.name[0].isdigit()), key=lambda p: p.name)
