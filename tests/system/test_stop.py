"""Signals that ask for an end: raised, held back, dropped by a finaliser, sent twice, ignored, of a lost terminal."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAD = """
import os, signal, sys, time
from gan_kd.system.stop import Stopped, StopSignal
def send(number):
    os.kill(os.getpid(), number)
class Dropping:
    def __del__(self):
        send(signal.SIGTERM)
try:
    with StopSignal() as stop:
"""
TAIL = """
except Stopped:
    time.sleep(0.05)
    print("stopped")
"""


def ran(body, **options):
    program = HEAD + "".join(f"        {line}\n" for line in body.splitlines()) + TAIL
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, **options
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_at_once(name):
    done = ran(f"send(signal.{name})\nprint('not reached')")
    assert (done.returncode, done.stdout) == (0, "stopped\n")
    assert f"{name}: saving and ending" in done.stderr and "Traceback" not in done.stderr


def test_what_is_held_goes_on_to_its_end():
    done = ran("with stop.held():\n    send(signal.SIGTERM)\n    print('saved')\nstop.check()\nprint('not reached')")
    assert done.stdout == "saved\nstopped\n"


def test_a_stop_that_a_finaliser_drops_is_raised_again():
    done = ran("it = Dropping()\ndel it\ntime.sleep(60)\nprint('not reached')")
    assert (done.returncode, done.stdout) == (0, "stopped\n") and "Traceback" not in done.stderr


def test_one_that_was_dropped_waits_for_what_is_held():
    done = ran("it = Dropping()\nwith stop.held():\n    del it\n    time.sleep(0.1)\n    print('saved')\nstop.check()")
    assert done.stdout == "saved\nstopped\n"


def test_one_that_was_dropped_does_not_outlive_the_stop():
    """The timer that raises it again would end the process, once nobody handles its signal."""
    done = ran("it = Dropping()\ndel it\nstop.check()")
    assert (done.returncode, done.stdout) == (0, "stopped\n")


def test_an_output_that_nobody_reads_does_not_keep_from_saving():
    done = ran("os.close(2)\nwith stop.held():\n    send(signal.SIGHUP)\n    print('saved')\nstop.check()")
    assert (done.returncode, done.stdout) == (0, "saved\nstopped\n")


def test_a_second_signal_ends_at_once():
    done = ran("with stop.held():\n    send(signal.SIGTERM)\n    send(signal.SIGTERM)\n    print('not reached')")
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


def test_a_second_hangup_is_none():
    """A shell that loses its terminal sends it to its jobs once more."""
    done = ran("with stop.held():\n    send(signal.SIGHUP)\n    send(signal.SIGHUP)\n    print('saved')\nstop.check()")
    assert done.stdout == "saved\nstopped\n"


def test_what_nohup_ignores_stays_ignored():
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    done = ran("send(signal.SIGHUP)\nprint('goes on')", preexec_fn=ignore)
    assert done.stdout == "goes on\n"


def test_a_terminal_that_is_closed(tmp_path):
    """Each line to it would be an error from then on; what is printed goes nowhere."""
    file = tmp_path / "saved"
    # 'ready' from inside: a signal before `held` would stop at once, with nothing to save.
    body = (
        "with stop.held():\n    print('ready', flush=True)\n    while not stop.asked:\n        time.sleep(0.01)\n"
        f"    print('lost', flush=True)\n    open({str(file)!r}, 'w').write('saved')"
    )
    program = HEAD + "".join(f"        {line}\n" for line in body.splitlines()) + TAIL
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", program])
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert file.read_text() == "saved"
