"""Keeps one process of a distributed job: `python -m gan_kd.distributed.keeper KEY=VALUE... -- COMMAND...`.

It lives on the machine of the process, started there by the launcher itself or by ssh, and ties the process to the
launcher by its standard input, which works over a network where signals do not: STOP asks the process to save and
end, the end of the input or a long silence kills it with all that it has started.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

#: What the launcher sends: that it lives, and that the process is to save and end.
ALIVE, STOP = b".", b"s"
#: Seconds without a word after which the launcher counts as dead.
SILENCE = 60.0
_POLL = 0.2
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def keep(settings: dict[str, str], command: list[str]) -> int:
    """Run `command` with `settings` added to the environment; its exit code, or 128 + n where signal n ended it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **settings},
        start_new_session=True,  # a group of its own, to be killed as a whole; Ctrl-C is for the launcher
        preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # for the end of this process by force
    )
    heard = time.monotonic()
    while process.poll() is None:
        if select.select([0], [], [], _POLL)[0]:
            words = os.read(0, 4096)
            if STOP in words:
                process.send_signal(signal.SIGINT)
            if words:
                heard = time.monotonic()
            else:
                break
        if time.monotonic() - heard > SILENCE:
            break
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    split = sys.argv.index("--")
    pairs = dict(setting.split("=", 1) for setting in sys.argv[1:split])
    sys.exit(keep(pairs, sys.argv[split + 1 :]))
