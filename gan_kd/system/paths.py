"""Names of files as the system has them: any bytes, and a home folder that a user may lack."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gan_kd.errors import UsageError


def expanded(path: str | Path) -> Path:
    """The path with the user's home folder for ~; UsageError where the user has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{path}: this user has no home folder (no HOME, and no entry in the system's list); write the path in full"
        ) from None


def lend_matplotlib_a_folder() -> None:
    """Without a home folder Matplotlib cannot be imported: it then gets a folder for its files, for this process."""
    if "MPLCONFIGDIR" not in os.environ and os.path.expanduser("~") == "~":
        os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="matplotlib-")
        atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)


@contextlib.contextmanager
def library_name(path: Path) -> Iterator[str]:
    """While entered, a name of a file or folder for libraries in C, which take every name for UTF-8.

    Other bytes end the process in OpenCV and are another file for MXNet; such a file is named by its descriptor (in
    /proc, as Linux has it), a new one in such a folder by the folder's. OSError where there is neither.
    """
    if os.fsencode(path).decode(errors="replace") == str(path):
        yield str(path)
        return
    inner = path.name.isascii() and path.name not in ("", "..")
    descriptor = os.open(path.parent if inner else path, os.O_PATH)
    try:
        yield f"/proc/self/fd/{descriptor}" + (f"/{path.name}" if inner else "")
    finally:
        os.close(descriptor)
