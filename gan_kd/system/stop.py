"""Signals that ask a command to end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that was closed."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked for the end. A KeyboardInterrupt, because whoever handles errors must let it pass likewise."""


class StopSignal:
    """While entered, a signal of these raises Stopped in the main thread, or inside `held` waits for `check`.

    Python drops what is raised in a finaliser, as MXNet's arrays have them; then it is raised again a moment later.
    A second one acts as if this were not there: it ends the process at once. Signals that the process was started to
    ignore (SIGHUP after nohup) stay ignored.
    """

    def __init__(self) -> None:
        self.asked = False
        self._held = 0
        self._dropped = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)
        self._alarm_before = signal.signal(signal.SIGALRM, self._alarm)
        self._hook_before, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(self, *_: object) -> None:
        self._release()
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = self._hook_before
        signal.signal(signal.SIGALRM, self._alarm_before)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What is inside is not interrupted."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def check(self) -> None:
        """Raise Stopped where a signal asked for it."""
        if self.asked:
            self._dropped = False
            raise Stopped

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        # A terminal that is lost sends this twice, its shell once more: that is no second request, at no moment.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        hangup = self._before.pop(signal.SIGHUP, None)
        self._release()
        if number == signal.SIGHUP:
            leave_terminal()
        elif hangup is not None:
            self._before[signal.SIGHUP] = hangup
        name = signal.Signals(number).name
        with contextlib.suppress(OSError):  # nobody reads it; and no `print`, in whose middle the signal may have come
            os.write(2, f"\n{name}: saving and ending; a second signal ends at once\n".encode())
        if not self._held:
            raise Stopped

    def _release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _unraisable(self, dropped: Any) -> None:
        if dropped.exc_type is not Stopped:
            self._hook_before(dropped)
            return
        self._dropped = True
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if self._dropped and not self._held:
            self._dropped = False
            raise Stopped


def leave_terminal() -> None:
    """Send what would be printed to a closed terminal nowhere: each line would be an error in the middle of saving."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # it is closed
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)
