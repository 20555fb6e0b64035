"""What a params file holds, as JSON behind its arrays: the file alone is then enough.

MXNet reads the arrays and no further, so GluonCV's networks load such a file like any other. An entry among the
arrays they would refuse.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_kd.errors import UsageError
from gan_kd.gluon.params_file import MARK
from gan_kd.system.files import sha256
from gan_kd.system.strict_json import dumps
from gan_kd.system.untrusted import parse_json


def append(path: Path, meta: Mapping[str, Any]) -> None:
    """Add the description to a file of arrays that has none; OSError where the disk is full."""
    text = dumps({**meta, "arrays_sha256": sha256(path)})
    with open(path, "ab") as stream:
        stream.write(MARK + text.encode() + b"\n")


def read(path: Path) -> dict[str, Any] | None:
    """The description in a file, with the file's sha256 as in best.json; None where it has none.

    UsageError where the file was changed since.
    """
    if not path.stat().st_size:
        return None  # which cannot be mapped
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.rfind(MARK)
        if end < 0:
            return None
        try:
            meta = parse_json(content[end + len(MARK) :])
        except ValueError:
            meta = None
        if not isinstance(meta, dict) or meta.pop("arrays_sha256", None) != hashlib.sha256(content[:end]).hexdigest():
            raise UsageError(f"{path}: truncated or changed since it was saved; copy it again")
    return {**meta, "sha256": sha256(path)}
