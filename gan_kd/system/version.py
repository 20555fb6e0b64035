"""Which code this is: its version, and its commit where it runs from a git checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gan_kd import __version__

UNKNOWN = "unknown"


def version() -> str:
    """As in '0.1.0 (commit 0123456789ab)'; the version alone where the commit is not known."""
    code = commit()
    return __version__ if code == UNKNOWN else f"{__version__} (commit {code})"


def commit() -> str:
    """The commit of the code that runs, with + where files differ from it; "unknown" outside a git checkout.

    An installed package is outside, too, even where its environment lies in a folder of some other repository.
    """
    root = Path(__file__).resolve().parent
    try:
        _git(root, "ls-files", "--error-unmatch", Path(__file__).name)
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no", "--", "../..") else "")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()
