"""Commands and paths as they are written for a shell in the current folder."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path


def command_line(*arguments: str) -> str:
    """A command of this package, ready to be pasted: with this Python, and quoted."""
    return shlex.join([str(from_here(Path(sys.executable))), "-m", "gan_kd", *arguments])


def from_here(path: Path) -> Path:
    """`path` relative to the current folder where it lies below: recipes and reports then name no machine's folders."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else Path(relative)
