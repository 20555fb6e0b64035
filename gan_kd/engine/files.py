"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mxnet import MXNetError

from gan_kd.errors import RunError


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_file(path: Path, fill: Callable[[Path], object]) -> None:
    """Have `fill` write a file under another name, then put it in place; the old file stays until that is done.

    RunError where it cannot be written, a full disk above all.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with _saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fill(beside)
            _sync(beside)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """The same for a value as JSON."""
    write_file(path, lambda target: target.write_text(json.dumps(value, indent=1) + "\n"))


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """The same for a folder: `fill` gets an empty one beside `path`. A folder already there is replaced."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with _saving(path):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            fill(beside)
            for file in beside.iterdir():
                _sync(file)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(beside, path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _sync(path: Path) -> None:
    """Bring a file to the disk: a rename may otherwise survive a power cut that its contents do not."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


@contextlib.contextmanager
def _saving(path: Path) -> Iterator[None]:
    """Turn a failed write, MXNet's own included, into one sentence."""
    try:
        yield
    except (OSError, MXNetError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RunError(
            f"cannot save {path}: {reason}; what was saved before is whole - make room and go on with --resume"
        ) from error
