"""What a command shows on the screen: log lines from a level on, and progress bars. Nothing is coloured."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

#: Level of the lines that a command ends with: above INFO, so that --quiet shows them.
RESULT = 25

_log = logging.getLogger("gan_kd")


class Screen(logging.Handler):
    """Prints lines above a progress bar instead of through it; warnings go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr if record.levelno >= logging.WARNING else sys.stdout)


@contextlib.contextmanager
def screen(level: int = logging.INFO) -> Iterator[None]:
    """While entered, log lines from this level on are shown, and progress bars where that includes INFO."""
    handler, before = Screen(level), (_log.level, _log.propagate)
    _log.addHandler(handler)
    _log.setLevel(min(level, logging.INFO))  # train.log has INFO, whatever is shown
    _log.propagate = False
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(before[0])
        _log.propagate = before[1]


@contextlib.contextmanager
def as_asked() -> Iterator[None]:
    """Around what prints by itself, as GluonCV's downloads: silent where lines below RESULT are not shown."""
    if not no_bar():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def no_bar() -> bool | None:
    """tqdm's `disable`: True where lines below RESULT are not shown, else None, which is none without a terminal."""
    quiet = any(isinstance(handler, Screen) and handler.level >= RESULT for handler in _log.handlers)
    return True if quiet else None
