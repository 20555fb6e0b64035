"""What a user can get wrong, as exceptions that carry the exit code of the command line."""

from __future__ import annotations

#: Exit code of what Ctrl-C ended, as shells give it.
INTERRUPTED = 130


class UserError(Exception):
    """What the user can mend: one sentence with the file, the value and the way out."""

    exit_code = 1


class UsageError(UserError):
    """Wrong use: bad arguments, a bad recipe, bad input files. Exit code 2."""

    exit_code = 2


class RunError(UserError):
    """A run that started and could not go on. Exit code 1."""

    exit_code = 1
