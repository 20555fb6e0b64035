"""The parent of tests/fuzz/child.py: starts it again behind a case that ended it, and ends it in one that hangs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
#: Seconds after which a case hangs.
LIMIT = 60.0
START = 120.0  # more for the start of a process


class Outcome(NamedTuple):
    """What became of a case: accepted, refused, fault (a traceback, or no single line), crash or hang."""

    case: str
    outcome: str
    said: str
    gigabytes: float  # peak of resident memory


def work_through(kind: str, folder: Path, guarded: bool = True, limit: float = LIMIT) -> list[Outcome]:
    """All cases of a kind in a folder of their own, by our code or (not guarded) by the bare parser."""
    outcomes: list[Outcome] = []
    folder.mkdir(parents=True)
    while True:
        under_way, error = _child(kind, folder / str(len(outcomes)), guarded, limit, outcomes)
        if under_way is None:
            if error:
                raise RuntimeError(f"the child for {kind} failed outside of its cases:\n{error}")
            return outcomes
        outcomes.append(Outcome(under_way, "hang" if error == "hang" else "crash", error, 0.0))


def _child(kind: str, folder: Path, guarded: bool, limit: float, outcomes: list[Outcome]) -> tuple[str | None, str]:
    """Run a child from the first case without an outcome on; the case that ended it and what it said, or None."""
    mode = "guarded" if guarded else "bare"
    command = [sys.executable, "-m", "tests.fuzz.child", kind, str(folder), str(len(outcomes)), mode]
    folder.mkdir()
    with open(folder.with_suffix(".err"), "w+") as errors:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert child.stdout is not None
        hung = threading.Event()
        under_way = None
        watch = _watch(child, hung, limit + START)
        for line in child.stdout:
            watch.cancel()
            watch = _watch(child, hung, limit)
            said = json.loads(line)
            if "case" in said:
                under_way = f"{kind} {said['case']}: {said['file']}, {said['what']}"
            elif under_way is not None:
                outcomes.append(Outcome(under_way, said["outcome"], said["said"], said["gigabytes"]))
                under_way = None
        code = child.wait()
        watch.cancel()
        errors.seek(0)
        last = "hang" if hung.is_set() else f"exit code {code}: {errors.read()[-500:]}"
    return under_way, last if code else ""


def _watch(child: subprocess.Popen, hung: threading.Event, limit: float) -> threading.Timer:
    def end() -> None:
        hung.set()
        child.kill()

    timer = threading.Timer(limit, end)
    timer.daemon = True
    timer.start()
    return timer
