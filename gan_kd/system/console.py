"""What a command shows on the screen: log lines from a level on, and progress bars. Nothing is coloured.

Nothing that is shown decides over what is done: a stream that cannot be written is told of once and then left alone.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import TextIO

#: Level of the lines that a command ends with: above INFO, so that --quiet shows them.
RESULT = 25

_log = logging.getLogger("gan_kd")


class Screen(logging.Handler):
    """Prints lines above a progress bar instead of through it; warnings go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        try:
            tqdm.write(self.format(record), file=stream)
            stream.flush()
        except (OSError, ValueError) as error:  # ValueError: it is closed
            leave(stream, error)


class LogFile(logging.FileHandler):
    """A log file in UTF-8. One that cannot be written any more is told of once, and what it tells of goes on."""

    def __init__(self, path: str) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.failed = False

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what waits in it, once more
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.failed:
            self.failed = True
            tell(f"warning: {self.baseFilename} cannot be written ({_reason(sys.exc_info()[1])}); the run goes on")


def prepare_streams() -> None:
    """Have all three standard streams, and text that a stream cannot show escaped in it.

    The number of one that the process was started without would go to the next file that is opened, into which
    libraries would then print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest free number
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (as long as the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show(text: str) -> None:
    """Print a line of a command that has more to do, or has kept what it did: where that fails, it goes on."""
    try:
        print(text, flush=True)
    except (OSError, ValueError) as error:
        leave(sys.stdout, error)


def tell(text: str) -> None:
    """Print a line on stderr; where nobody can read it, there is nobody else to tell."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError) as error:
        leave(sys.stderr, error)


def leave(stream: TextIO, error: Exception) -> None:
    """Send what is printed in a stream nowhere from now on; of stdout that is told on stderr."""
    _silence(stream)
    if stream is sys.stdout:
        tell(f"warning: standard output cannot be written ({_reason(error)}); nothing more is shown there")


def end_output() -> None:
    """Print what waits in stdout, or drop it where that fails: Python would say so itself, with another exit code."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()  # what waited there


def _reason(error: BaseException | None) -> str:
    return getattr(error, "strerror", None) or str(error)


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
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def no_bar() -> bool | None:
    """tqdm's `disable`: True where lines below RESULT are not shown, else None, which is none without a terminal."""
    quiet = any(isinstance(handler, Screen) and handler.level >= RESULT for handler in _log.handlers)
    return True if quiet else None
