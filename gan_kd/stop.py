"""Signals that ask a command to end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that was closed."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked for the end. A KeyboardInterrupt, because whoever handles errors must let it pass likewise."""


class StopSignal:
    """While entered, a signal of these raises Stopped in the main thread, or inside `held` waits for `check`.

    A second one acts as if this were not there: it ends the process at once. Signals that the process was started to
    ignore (SIGHUP after nohup) stay ignored.
    """

    def __init__(self) -> None:
        self.asked = False
        self._held = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What is inside is not interrupted."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def check(self) -> None:
        """Raise Stopped where a signal asked for it: inside `held`, or where a finaliser swallowed it."""
        if self.asked:
            raise Stopped

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.__exit__()
        # A shell that loses its terminal sends this to its jobs once more: that is no second request.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if number == signal.SIGHUP:
            leave_terminal()
        # Not `print`: the signal may have come in the middle of one.
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: saving and ending; a second signal ends at once\n".encode())
        if not self._held:
            raise Stopped


def leave_terminal() -> None:
    """Send what would be printed to a closed terminal nowhere: each line would be an error in the middle of saving."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
