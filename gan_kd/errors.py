"""What a user can get wrong, as exceptions that carry the exit code of the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_LONGEST = 3000  # characters of a message

#: Exit code of what Ctrl-C ended, as shells give it.
INTERRUPTED = 130


class UserError(Exception):
    """What the user can mend: one sentence with the file, the value and the way out."""

    exit_code = 1

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


class UsageError(UserError):
    """Wrong use: bad arguments, a bad recipe, bad input files. Exit code 2."""

    exit_code = 2


class RunError(UserError):
    """A run that started and could not go on. Exit code 1."""

    exit_code = 1


class Diverged(RunError):
    """Losses, weights or detections are nan or infinite; run again, the same training ends so again. Exit code 3."""

    exit_code = 3


def all_of(*needs: Callable[[], Any]) -> list[Any]:
    """What each of the functions gives; where some cannot, one sentence that names everything that is missing.

    Raises the only UserError, or a UsageError of all.
    """
    given, missing = [], []
    for need in needs:
        try:
            given.append(need())
        except UserError as error:
            missing.append(error)
    if len(missing) > 1:
        raise UsageError("; and ".join(str(error).rstrip(".") for error in missing))
    if missing:
        raise missing[0]
    return given


def printable(text: str) -> str:
    """The same on one line that every terminal can show: values in it may come from a stranger's file."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
