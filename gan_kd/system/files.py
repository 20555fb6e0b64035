"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mxnet import MXNetError

from gan_kd.errors import RunError
from gan_kd.system.strict_json import dumps

#: What is being written: `.NAME.PROCESS` beside NAME.
_UNFINISHED = re.compile(r"\..+\.[0-9]+")


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
    beside = _beside(path)
    with _saving(path):
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file")
        make_folder(path.parent)
        try:
            fill(beside)
            sync(beside)
            os.replace(beside, path)
            sync(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """The same for a value as JSON, of `gan_kd.system.strict_json`."""
    write_file(path, lambda target: target.write_text(dumps(value, indent=1) + "\n", encoding="utf-8"))


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """The same for a folder: `fill` gets an empty one beside `path`. A folder already there is replaced."""
    beside = _beside(path)
    with _saving(path):
        shutil.rmtree(beside, ignore_errors=True)
        make_folder(path.parent)
        beside.mkdir()
        try:
            fill(beside)
            for file in beside.iterdir():
                sync(file)
            sync(beside)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(beside, path)
            sync(path.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def move_folder(path: Path, new: Path) -> None:
    """Give a folder another name, on the disk at once; RunError where it cannot be."""
    with _saving(new):
        os.replace(path, new)
        sync(new.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left half-written anywhere in `folder`; nobody else may be writing there."""
    for path in [path for path in folder.rglob(".*") if _UNFINISHED.fullmatch(path.name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each on the disk before something is put into it."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk: a power cut may otherwise leave a name without contents,
    or the old name after the new one was reported."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


@contextlib.contextmanager
def _saving(path: Path) -> Iterator[None]:
    """Turn a failed write, MXNet's own included, into one sentence."""
    try:
        yield
    except (OSError, MXNetError) as error:
        # MXNet's message has its stack trace before what happened.
        reason = getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise RunError(
            f"cannot save {path}: {reason}; what was saved before is whole - make room and go on with --resume"
        ) from error
