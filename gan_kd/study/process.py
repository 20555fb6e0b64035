"""One run as a process of its own: tied to the study's life, on its own cores, its output in a file."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gan_kd.study.job import Job

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Process:
    """A started run."""

    def __init__(self, job: Job, output: Path, cores: Sequence[int], lock: int) -> None:
        """Start or resume `job` on these cores; what it prints goes to `output`.

        The run inherits the study's `lock`, so that no other study process starts before it has ended. It dies with
        this process, however that ends; Linux has this tie (PR_SET_PDEATHSIG), it holds for the thread that starts the
        run, which must therefore be one that lasts. Ctrl-C in the terminal does not reach the run: `stop` does.
        """
        self.job, self.output, self.cores = job, output, cores
        self.resumed = job.read() is not None
        self.started = time.monotonic()
        parent = os.getpid()

        def tie() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it was killed before the tie held
                os._exit(1)
            os.sched_setaffinity(0, cores)  # `train` takes its number of threads from these

        output.parent.mkdir(parents=True, exist_ok=True)
        with open(output, "wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, *job.arguments(self.resumed)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,
                preexec_fn=tie,
            )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def code(self) -> int:
        """Exit code of a run that has ended, -N for signal N."""
        return self._process.returncode

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.started

    def stop(self) -> None:
        """Ask it to save and end; asked twice, it ends at once."""
        self._process.send_signal(signal.SIGTERM)  # SIGINT is ignored by what a script started in the background

    def wait(self) -> None:
        self._process.wait()

    def problem(self) -> str:
        """Why it ended, in its own words where it had any."""
        if self.code < 0:
            return f"it was ended by {signal.Signals(-self.code).name}"
        lines = self.output.read_text("utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), f"exit code {self.code}")
        return last.strip().removeprefix("error: ")
