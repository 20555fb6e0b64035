"""Processes that fill batches of arrays in shared memory.

Workers are fresh Python processes, not forks: MXNet's OpenMP threads hang in a forked child. They import
what the pickled task needs and nothing of the caller's script, so a script without a `__main__` guard works
as well. The shared memory has no name: a killed process leaves nothing behind, and the size of /dev/shm does
not matter.
"""

from __future__ import annotations

import contextlib
import logging
import math
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing import Pipe, connection
from typing import NamedTuple, Protocol, Union

import cv2
import numpy as np

from gan_kd.data.batch import Array
from gan_kd.data.sizes import Size
from gan_kd.errors import RunError, UserError
from gan_kd.system.stop import SIGNALS

log = logging.getLogger("gan_kd")
_SLOTS = 3  # batches in memory: the one in use, and two that the workers fill meanwhile

_ALIGNED = 64  # bytes: where an array may begin

Slot = list[np.ndarray]  # the arrays of one batch
Memory = Union[mmap.mmap, bytearray]
_TRIES = 3  # workers that may fail one after another at the same share of a batch
_NAMED = 3  # samples in a message


class Request(NamedTuple):
    """A batch to be made."""

    epoch: int
    size: Size
    indices: list[int]


class Task(Protocol):
    """What makes batches: picklable, importable without the caller's script."""

    def layout(self, size: Size) -> list[Array]:
        """The arrays of a batch of this size."""
        ...

    def write(self, slot: Slot, row: int, epoch: int, index: int) -> None:
        """Write sample `index` into a row of the slot; raises UserError."""
        ...

    def name(self, index: int) -> str:
        """A sample in messages."""
        ...


class WorkerFailure(RunError):
    """A worker died or hung, and no other is started in its place."""


class WorkerPolicy(NamedTuple):
    """What is done about a worker that dies, or makes nothing for `timeout` seconds while it is waited for.

    restart: another takes its place and makes the same samples, so that the batches stay the same.
    """

    timeout: float = 120.0
    restart: bool = True


class Pool:
    """Workers that share each batch, every one making every n-th sample.

    memory: bytes of the largest batch, as of `memory_of`. Raises WorkerFailure where the policy wants no restart, or
    three workers fail at the same samples; the pool is closed then.
    """

    def __init__(self, task: Task, memory: int, num_workers: int, policy: WorkerPolicy) -> None:
        self._policy, self._task, self._each = policy, task, memory
        job = pickle.dumps((task, memory))
        offset = _SLOTS * memory
        file = _anonymous_file(offset + len(job))
        self._memory = mmap.mmap(file, offset + len(job))
        self._memory[offset:] = job
        self._workers: list[_Worker] = []
        self._start = partial(_start, file, offset)
        self.close = weakref.finalize(self, _stop, self._workers, file)  # also at the end of the program
        for _ in range(num_workers):
            self._workers.append(self._start())
        self._asked = 0  # batches since the workers were started
        self._made = [0] * num_workers  # by each worker, its share of these
        self._run: object | None = None

    def fill(self, requests: Sequence[Request]) -> Iterator[Slot]:
        """For each batch the slot that holds it, until the next one is asked for.

        The first UserError of a task is raised where its batch would have come.
        """
        if not self._workers:
            raise RuntimeError("the loader is closed")
        self._run = run = object()
        self._await(self._asked)  # answers to an abandoned epoch, maybe errors, would be taken for this one's
        first = self._asked
        for k, request in enumerate(requests):
            while self._asked - first < min(k + _SLOTS, len(requests)):
                self._ask((self._asked - first) % _SLOTS, requests[self._asked - first])
            error = self._await(first + k + 1)
            if error:
                raise error
            yield views(self._memory, self._task.layout(request.size), k % _SLOTS * self._each)
            if self._run is not run:
                raise RuntimeError("this epoch ended when another was started")

    def _ask(self, slot: int, request: Request) -> None:
        samples = list(enumerate(request.indices))
        self._asked += 1
        for number, worker in enumerate(self._workers):
            worker.shares.append(_Share(slot, request.epoch, request.size, samples[number :: len(self._workers)]))
            with contextlib.suppress(OSError):  # it is dead, which `_await` finds
                worker.pipe.send(worker.shares[-1])

    def _await(self, batches: int) -> UserError | None:
        """Waits until every worker has made its share of so many batches; returns the first error in them."""
        first: UserError | None = None
        while True:
            late = [number for number, made in enumerate(self._made) if made < batches]
            if not late:
                return first
            ready = connection.wait([self._workers[number].pipe for number in late], self._policy.timeout)
            for number in late:
                worker = self._workers[number]
                if not ready:
                    self._replace(number, f"made nothing for {self._policy.timeout:g} s")
                elif worker.pipe in ready:
                    try:
                        first = worker.pipe.recv() or first
                    except (EOFError, OSError):
                        self._replace(number, worker.death())
                    else:
                        worker.shares.popleft()
                        worker.failed = 0
                        self._made[number] += 1

    def _replace(self, number: int, what: str) -> None:
        """Start another worker in the place of one that `what` is said of, and ask it for all that is still to make."""
        worker = self._workers[number]
        message = f"data loader worker {number + 1} of {len(self._workers)} (process {worker.process.pid}) {what}"
        message += f", with {self._in_words(worker.shares[0])} in hand"
        if not self._policy.restart or worker.failed + 1 == _TRIES:
            self.close()
            if self._policy.restart:
                message += f", as {_TRIES - 1} did before it at the same images"
            raise WorkerFailure(
                f"{message}: look at the memory, the data set's disk and these images, or load without workers "
                "(train.num_workers=0)"
            )
        log.warning("%s: another takes its place", message)
        _end(worker)
        other = self._workers[number] = self._start()
        other.shares, other.failed = worker.shares, worker.failed + 1
        for share in other.shares:
            with contextlib.suppress(OSError):
                other.pipe.send(share)

    def _in_words(self, share: _Share) -> str:
        """The samples of a share by name, or some of them."""
        names = [self._task.name(index) for _, index in share.samples]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return (", ".join(names[:_NAMED]) or "no image") + more


class _Share(NamedTuple):
    """A worker's part of a batch."""

    slot: int
    epoch: int
    size: Size
    samples: list[tuple[int, int]]  # row, index


class _Worker:
    """A process, what it has been asked for and not made yet, and how many failed before it at the first of these."""

    def __init__(self, process: subprocess.Popen, pipe: connection.Connection) -> None:
        self.process, self.pipe = process, pipe
        self.shares: deque[_Share] = deque()
        self.failed = 0

    def death(self) -> str:
        """How it died, in words."""
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "went away"
        cause = f" ({signal.Signals(-code).name})" if code < 0 else ""
        hint = ", mostly for lack of memory" if code in (-signal.SIGKILL, -signal.SIGBUS) else ""
        return f"died with exit code {code}{cause}{hint}"


def _start(file: int, offset: int) -> _Worker:
    """A worker process that shares the memory of this file and finds its job at the offset."""
    ours, theirs = Pipe()
    program = (
        f"import sys; sys.path[:] = {[str(folder) for folder in sys.path]!r}; "
        f"from gan_kd.data import workers; workers.work({theirs.fileno()}, {file}, {offset})"
    )
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), file),
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C in a terminal is for the parent alone, which ends its workers itself
        )
    except OSError as error:
        raise WorkerFailure(f"a data loader worker cannot be started ({error.strerror}): use fewer") from error
    theirs.close()
    return _Worker(process, ours)


def _stop(workers: list[_Worker], file: int) -> None:
    """Ends the workers at once: they hold nothing that could be lost."""
    for worker in workers:
        worker.process.kill()
    while workers:
        _end(workers.pop())
    os.close(file)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.wait()
    worker.pipe.close()


def _anonymous_file(size: int) -> int:
    """Descriptor of a file of zeros without a name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("gan_kd batches")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file


def memory_of(layout: Sequence[Array]) -> int:
    """Bytes of a batch of these arrays."""
    return sum(_bytes(array) for array in layout)


def _bytes(array: Array) -> int:
    """Of an array, up to where the next may begin."""
    shape, dtype = array
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // _ALIGNED) * _ALIGNED


def views(memory: Memory, layout: Sequence[Array], offset: int = 0) -> Slot:
    """The arrays of a batch, one after another from this byte of the memory."""
    slot: Slot = []
    for shape, dtype in layout:
        slot.append(np.ndarray(shape, dtype, memory, offset))
        offset += _bytes((shape, dtype))
    return slot


def work(pipe_number: int, file: int, offset: int) -> None:
    """A worker's life: makes what it is asked for until its pipe closes, as it does when the parent dies."""
    for number in SIGNALS:  # they may be sent to all processes of a job, whose main one decides
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    memory = mmap.mmap(file, 0)
    task, each = pickle.loads(memory[offset:])
    pipe: connection.Connection = connection.Connection(pipe_number)
    try:
        while True:
            share: _Share = pipe.recv()
            slot = views(memory, task.layout(share.size), share.slot * each)
            error: UserError | None = None
            try:
                for row, index in share.samples:
                    task.write(slot, row, share.epoch, index)
            except UserError as problem:
                error = problem
            pipe.send(error)
    except (EOFError, OSError):
        return
