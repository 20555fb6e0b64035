"""Training what a study has not trained yet: in order, resumable at any moment, never two studies at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import BinaryIO

from gan_kd.errors import Diverged, RunError, UsageError
from gan_kd.report.report import make_report
from gan_kd.study.job import DIVERGED, Job
from gan_kd.study.plan import Plan
from gan_kd.study.process import Process
from gan_kd.system.stop import SIGNALS, Stopped, leave_terminal

_POLL = 0.2  # s between looks at the runs
_GRACE = 5.0  # s that the runs of a killed study have to end


def run_study(plan: Plan, at_once: int, report: Callable[[], object], say: Callable[[str], None]) -> list[str]:
    """Train every run of the plan that is due and not finished; a line for each that failed, none where all are.

    A trial of a search that diverges has not failed: it is marked, and counts as the worst of its arm.

    at_once: runs side by side, each on an equal share of this process's cores. report: called after every run that
    finished. say: takes the lines for the screen. Raises Stopped; UsageError where another process runs this study.
    """
    shares = _shares(at_once)
    with _locked(plan) as lock, _signals() as stop:
        return _Runner(plan, shares, lock, stop, report, say).run()


class _Stop:
    """How often a stop was asked for."""

    asked = 0

    def ask(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
            self.asked = max(1, self.asked)  # a shell that loses its terminal sends it to its jobs once more
        else:
            self.asked += 1


class _Runner:
    """The runs that wait, run and failed."""

    def __init__(
        self,
        plan: Plan,
        shares: list[list[int]],
        lock: int,
        stop: _Stop,
        report: Callable[[], object],
        say: Callable[[str], None],
    ) -> None:
        self.plan, self.free, self.lock, self.stop, self.report, self.say = plan, shares, lock, stop, report, say
        self.at_once = len(shares)
        self.running: list[Process] = []
        self.failed: list[str] = []
        self.seconds: list[float] = []
        self.told = 0

    def run(self) -> list[str]:
        """Until nothing waits or runs."""
        self.waiting = [job for job in self.plan.due if not self._done_before(job)]
        try:
            while self.waiting or self.running:
                self._heed_stop()
                self._start()
                time.sleep(_POLL)
                for process in [process for process in self.running if process.ended]:
                    self._ended(process)
        finally:  # whatever went wrong here, no run loses what it could save
            for process in self.running:
                process.stop()
            for process in self.running:
                process.wait()
        return self.failed

    def _done_before(self, job: Job) -> bool:
        if job.diverged:
            self.say(f"{self._number(job)} {job}: diverged before, {job.diverged}")
            return True
        run = job.read()
        if run is None or not run.finished:
            return False
        if not (job.folder / "report" / "report.html").is_file():
            make_report(job.folder)  # killed between its evaluation and its report
        self.say(f"{self._number(job)} {job}: done before, {_map(job)}")
        return True

    def _heed_stop(self) -> None:
        """Pass every Ctrl-C, SIGTERM and SIGHUP on to the runs; raises Stopped when all have ended."""
        if not self.stop.asked:
            return
        if self.running and self.told < self.stop.asked:
            self.say("stopping: the runs save and end; a second Ctrl-C ends them at once")
            for process in self.running:
                process.stop()
            self.told = self.stop.asked
        if not self.running:
            raise Stopped

    def _start(self) -> None:
        while self.waiting and self.free and not self.stop.asked:
            teacher = self.plan.due_teacher
            if any(process.job is teacher for process in self.running):
                return  # all others learn from it
            job = self.waiting.pop(0)
            process = Process(
                job, self.plan.folder / "output" / f"{job.label}-{job.seed}.txt", self.free.pop(), self.lock
            )
            self.running.append(process)
            self.say(f"{self._number(job)} {job}: {'resumed' if process.resumed else 'started'}")

    def _ended(self, process: Process) -> None:
        self.running.remove(process)
        self.free.append(list(process.cores))
        job, run = process.job, process.job.read()
        if run is not None and run.finished and process.code == 0:
            self.seconds.append(process.seconds)
            self.report()
            self.say(f"{self._number(job)} {job}: {_map(job)}, {_time(process.seconds)}{self._left()}")
        elif self.stop.asked:
            self.waiting.insert(0, job)
        elif self.plan.chosen is None and job is not self.plan.due_teacher and process.code == Diverged.exit_code:
            # Run again it would be no better, while a trial that a full disk or a signal ended may be.
            (job.folder / DIVERGED).write_text(f"{process.problem()}\n", "utf-8")
            self.report()
            self.say(f"{self._number(job)} {job} diverged, and counts as the worst: {process.problem()}")
        else:
            self._fail(job, f"{process.problem()} (output: {process.output})")

    def _fail(self, job: Job, problem: str) -> None:
        self.failed.append(f"{job}: {problem}")
        self.say(f"{self._number(job)} {job} failed: {problem}")
        if job is self.plan.due_teacher:
            for other in [other for other in self.waiting if other.recipe.needs_teacher]:
                self.waiting.remove(other)
                self._fail(other, "not run, for its teacher failed")

    def _number(self, job: Job) -> str:
        jobs = self.plan.due
        return f"[{jobs.index(job) + 1}/{len(jobs)}]"

    def _left(self) -> str:
        """Estimate for what is left, from the runs of this process."""
        runs = len(self.waiting) + len(self.running)
        if not runs or self.stop.asked:
            return ""
        return f"; about {_time(runs * sum(self.seconds) / len(self.seconds) / self.at_once)} for the {runs} left"


def _map(job: Job) -> str:
    run = job.read()
    value = run.networks[job.network].last_map if run else None
    return "no mAP" if value is None else f"mAP {value:.2f}"


def _time(seconds: float) -> str:
    """Seconds in a person's words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _shares(number: int) -> list[list[int]]:
    """The cores of this process in `number` equal parts."""
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= number <= len(cores):
        raise UsageError(f"--jobs {number} has to be from 1 to {len(cores)}, the cores of this process")
    size = len(cores) // number
    return [cores[i * size : (i + 1) * size] for i in range(number)]


@contextlib.contextmanager
def _locked(plan: Plan) -> Iterator[int]:
    """Hold the study's lock, which its runs inherit: a killed study's are waited for."""
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        lock = open(plan.folder / ".lock", "wb")  # noqa: SIM115  (open as long as the study)
    except OSError as error:
        raise RunError(f"cannot write {plan.folder}: {error.strerror}; choose another --save-prefix") from error
    with lock:
        until = time.monotonic() + _GRACE
        while not _take(lock):
            if time.monotonic() > until:
                raise UsageError(
                    f"another process is running the study {plan.name} in {plan.prefix}; wait for it, or choose "
                    "another --save-prefix"
                )
            time.sleep(_POLL)
        yield lock.fileno()


def _take(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _signals() -> Iterator[_Stop]:
    """Count the signals that ask for an end instead of dying of them; one that nohup ignores stays ignored."""
    stop, numbers = _Stop(), [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, stop.ask) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
