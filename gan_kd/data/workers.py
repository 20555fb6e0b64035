"""Processes that fill batches of float32 arrays in shared memory.

Workers are fresh Python processes, not forks: MXNet's OpenMP threads hang in a forked child. They import
what the pickled task needs and nothing of the caller's script, so a script without a `__main__` guard works
as well. The shared memory has no name: a killed process leaves nothing behind, and the size of /dev/shm does
not matter.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe, connection
from typing import Callable, NamedTuple

import cv2
import numpy as np

from gan_kd.errors import RunError, UserError

TIMEOUT = 120.0  # seconds that a worker may take for its share of a batch
_SLOTS = 3  # batches in memory: the one in use, and two that the workers fill meanwhile

Slot = list[np.ndarray]  # the arrays of one batch
# (slot, row, epoch, index) -> None writes sample `index` into a row of the slot; raises UserError.
Task = Callable[[Slot, int, int, int], None]


class Pool:
    """Workers that share each batch, every one making every n-th sample.

    task: picklable, importable without the caller's script; shapes: of a batch's float32 arrays.
    Raises RunError where a worker dies or takes longer than `TIMEOUT`; the pool is closed then.
    """

    def __init__(self, task: Task, shapes: Sequence[tuple[int, ...]], num_workers: int) -> None:
        job = pickle.dumps((task, shapes))
        offset = _SLOTS * sum(4 * int(np.prod(shape)) for shape in shapes)
        file = _anonymous_file(offset + len(job))
        memory = mmap.mmap(file, offset + len(job))
        memory[offset:] = job
        self._slots = _slots(memory, shapes)
        self._workers: list[_Worker] = []
        self.close = weakref.finalize(self, _stop, self._workers)  # also at the end of the program
        try:
            for _ in range(num_workers):
                self._workers.append(_start(file, offset))
        finally:
            os.close(file)
        self._asked = 0  # batches since the workers were started
        self._made = [0] * num_workers  # by each worker, its share of these
        self._run: object | None = None

    def fill(self, epoch: int, batches: Sequence[np.ndarray]) -> Iterator[Slot]:
        """For each batch of sample indices the slot that holds it, until the next one is asked for.

        The first UserError of a task is raised where its batch would have come.
        """
        if not self._workers:
            raise RuntimeError("the loader is closed")
        self._run = run = object()
        self._await(self._asked)  # answers to an abandoned epoch, maybe errors, would be taken for this one's
        first = self._asked
        for k in range(len(batches)):
            while self._asked - first < min(k + _SLOTS, len(batches)):
                self._ask((self._asked - first) % _SLOTS, epoch, batches[self._asked - first])
            error = self._await(first + k + 1)
            if error:
                raise error
            yield self._slots[k % _SLOTS]
            if self._run is not run:
                raise RuntimeError("this epoch ended when another was started")

    def _ask(self, slot: int, epoch: int, indices: np.ndarray) -> None:
        samples = list(enumerate(indices.tolist()))
        self._asked += 1
        for number, worker in enumerate(self._workers):
            try:
                worker.pipe.send((slot, epoch, samples[number :: len(self._workers)]))
            except OSError:
                self._mourn(worker)

    def _await(self, batches: int) -> UserError | None:
        """Waits until every worker has made its share of so many batches; returns the first error in them."""
        first: UserError | None = None
        while True:
            late = [number for number, made in enumerate(self._made) if made < batches]
            if not late:
                return first
            ready = connection.wait([self._workers[number].pipe for number in late], TIMEOUT)
            if not ready:
                self.close()
                raise RunError(
                    f"{len(late)} data loader workers made nothing for {TIMEOUT:.0f} s: see whether the data "
                    "set's disk answers, or set train.num_workers=0 to load without workers"
                )
            for number in late:
                worker = self._workers[number]
                if worker.pipe in ready:
                    try:
                        first = worker.pipe.recv() or first
                    except (EOFError, OSError):
                        self._mourn(worker)
                    self._made[number] += 1

    def _mourn(self, worker: _Worker) -> None:
        try:
            code: object = worker.process.wait(5)
        except subprocess.TimeoutExpired:
            code = "unknown"
        self.close()
        starved = code in (-signal.SIGKILL, -signal.SIGBUS)
        hint = ", mostly for lack of memory: use fewer workers or a smaller batch" if starved else ""
        raise RunError(f"data loader worker {worker.process.pid} died with exit code {code}{hint}")


class _Worker(NamedTuple):
    process: subprocess.Popen
    pipe: connection.Connection


def _start(file: int, offset: int) -> _Worker:
    """A worker process that shares the memory of this file and finds its job at the offset."""
    ours, theirs = Pipe()
    program = (
        f"import sys; sys.path[:] = {[str(folder) for folder in sys.path]!r}; "
        f"from gan_kd.data import workers; workers.work({theirs.fileno()}, {file}, {offset})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(), file),
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C in a terminal is for the parent alone, which ends its workers itself
    )
    theirs.close()
    return _Worker(process, ours)


def _stop(workers: list[_Worker]) -> None:
    """Ends the workers at once: they hold nothing that could be lost."""
    for worker in workers:
        worker.process.kill()
    while workers:
        worker = workers.pop()
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


def _slots(memory: mmap.mmap, shapes: Sequence[tuple[int, ...]]) -> list[Slot]:
    """The arrays of all slots, one after another from the start of the memory."""
    offset = 0
    slots: list[Slot] = []
    for _ in range(_SLOTS):
        slots.append([])
        for shape in shapes:
            slots[-1].append(np.ndarray(shape, np.float32, memory, offset))
            offset += slots[-1][-1].nbytes
    return slots


def work(pipe_number: int, file: int, offset: int) -> None:
    """A worker's life: makes what it is asked for until its pipe closes, as it does when the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    memory = mmap.mmap(file, 0)
    task, shapes = pickle.loads(memory[offset:])
    slots = _slots(memory, shapes)
    pipe: connection.Connection = connection.Connection(pipe_number)
    try:
        while True:
            slot, epoch, samples = pipe.recv()
            error: UserError | None = None
            try:
                for row, index in samples:
                    task(slots[slot], row, epoch, index)
            except UserError as problem:
                error = problem
            pipe.send(error)
    except (EOFError, OSError):
        return
