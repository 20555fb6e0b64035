"""Reading files that strangers made: regular files of a bounded size, JSON of a bounded depth, names of files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

#: Bytes of a small JSON file (best.json, state.json): a thousand times what we write.
SMALL = 10_000_000


def read_bytes(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most`.

    Raises OSError as open() does, and ValueError with the reason where it is larger, or a pipe or device, on which
    reading could wait forever.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
        file = os.fstat(stream.fileno())
        if not stat.S_ISREG(file.st_mode):
            raise ValueError("not a regular file")
        if file.st_size > most:
            raise ValueError(f"larger than {most / 1e6:g} MB")
        return stream.read(file.st_size)  # not `most`: Python takes the memory before it reads


def read_json(path: Path, most: int = SMALL) -> Any:
    """The value in a JSON file of at most `most` bytes; OSError, or ValueError with the reason."""
    return parse_json(read_bytes(path, most))


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; ValueError with the reason, too deep a nesting among them."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def file_within(folder: Path, name: str) -> Path:
    """The file of that name in `folder` or below it; ValueError where a name from a stranger leads elsewhere.

    Links inside the folder are followed: whoever made them there wanted the files behind them.
    """
    parts = PurePosixPath(name).parts
    if not parts or not name.isprintable():
        raise ValueError("it is empty or has characters that no file name should have")
    if name.startswith("/") or ".." in parts:
        raise ValueError(f"it leads out of {folder}")
    if len(name) > 1000 or max(map(len, map(os.fsencode, parts))) > 250:  # 250: a suffix still fits
        raise ValueError("it is too long")
    return folder / name
