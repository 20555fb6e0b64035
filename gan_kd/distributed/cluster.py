"""This process's place among the workers of a distributed job, and sums over all of them by MXNet's kvstore.

A job's processes find each other by ps-lite's environment (DMLC_*), which `gan_kd.distributed.launch` sets; without it
a process is alone and every sum is its own share. Every worker calls the same functions in the same order: each of them
waits for the others.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import nd
from mxnet.kvstore import KVStoreBase
from mxnet.ndarray import NDArray

from gan_kd.errors import INTERRUPTED, RunError
from gan_kd.system.stop import Stopped

#: Seconds until another machine must see a file that the first worker has written; network file systems lag.
VISIBLE = 60.0


class Cluster:
    """The workers of a job: `rank` counts from 0, `size` is 1 for a process alone.

    Servers add in float32, whatever the type of an array, and in the order of arrival. A sum of two does not depend on
    the order; with three workers and more the last bits of a sum of gradients may.
    """

    def __init__(self) -> None:
        self.distributed = os.environ.get("DMLC_ROLE") == "worker"
        # Not the kvstore's own rank: that goes by who answers first, and the first worker has the run's folder.
        self.rank = int(os.environ["DMLC_TASK_ID"]) if self.distributed else 0
        self.size = int(os.environ["DMLC_NUM_WORKER"]) if self.distributed else 1
        self._store: KVStoreBase | None = None
        self._keys: dict[tuple[str, tuple[int, ...], str], int] = {}

    @property
    def first(self) -> bool:
        """Whether this worker evaluates and writes."""
        return self.rank == 0

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Find the other workers; on the way out wait for them and end the servers.

        After an error there is no waiting: who waits for a worker that has ended does so for ever, and the launcher
        ends them all.
        """
        if not self.distributed:
            yield
            return
        # dist_sync that adds up one machine's gradients on its devices before they go over the network.
        self._store = mx.kv.create("dist_device_sync")
        try:
            yield
        except Stopped:  # all of them stop
            self._store = None
            raise
        except BaseException as error:
            code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
            atexit.register(_leave, code)
            raise
        self._store = None

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first worker does the block before the others do: it may write files that are there for them then."""
        if not self.first:
            self.total([0])
        yield
        if self.first:
            self.total([0])

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Sums over the workers of some numbers, in float64 and from the first worker on. Waits for them."""
        if self._store is None:
            return list(numbers)
        # As 16-bit parts beside zeros, which float32 adds without loss.
        parts = np.array(numbers, "float64").view("uint16").astype("float32")
        rows = [row.asnumpy().astype("uint16").view("float64") for [row] in self.gather("numbers", [nd.array(parts)])]
        return [float(value) for value in sum(rows)]

    def any(self, flag: bool) -> bool:
        """Whether a worker says so: the same answer for all of them."""
        return self.total([flag])[0] > 0

    def sum(self, label: str, array: NDArray) -> NDArray:
        """Sum over the workers of a float32 array of equal shape."""
        if self._store is None:
            return array
        total = array.copy()
        self.push_pull(label, total, total, 0)
        return total

    def gather(self, label: str, arrays: Sequence[NDArray]) -> list[list[NDArray]]:
        """For every worker its arrays, float32 and of the same shapes on all; on the CPU where there are others."""
        if self._store is None or not arrays:
            return [list(arrays)]
        flat = np.concatenate([array.asnumpy().reshape(-1) for array in arrays])
        rows = np.zeros((self.size, len(flat)), "float32")
        rows[self.rank] = flat
        cuts = np.cumsum([array.size for array in arrays])[:-1]
        return [
            [nd.array(part.reshape(array.shape)) for part, array in zip(np.split(row, cuts), arrays)]
            for row in self.sum(label, nd.array(rows)).asnumpy()
        ]

    def require_equal(self, what: str, arrays: Mapping[str, NDArray], position: object) -> None:
        """RunError where the workers do not all hold the same arrays and position: they would train apart."""
        if self._store is None:
            return
        digest = hashlib.sha256(repr(position).encode())
        for array in arrays.values():
            digest.update(np.ascontiguousarray(array.asnumpy()).tobytes())
        digests = self.gather("digest", [nd.array(list(digest.digest()))])
        if any((other.asnumpy() != digests[0][0].asnumpy()).any() for [other] in digests):
            raise RunError(
                f"the workers begin {what} with different parameters: all machines need the same code, weights, and "
                "one run folder that all of them see"
            )

    def require_visible(self, path: Path) -> None:
        """Wait for a file of the first worker; RunError where this machine does not see it."""
        deadline = time.monotonic() + VISIBLE
        while not path.exists():
            if time.monotonic() > deadline:
                raise RunError(
                    f"worker {self.rank} does not see {path.resolve()}, which worker 0 has written: name a "
                    "--save-prefix on a file system that all machines share"
                )
            time.sleep(0.5)

    def trainer_store(self, names: Sequence[str]) -> KVStoreBase | None:
        """What a Trainer of the parameters `names` takes as its kvstore; None for a process alone.

        Trainers number their parameters from 0 each, and the servers know no other key: so each needs its own.
        """
        return _TrainerStore(self, sorted(names)) if self._store is not None else None

    def push_pull(
        self, label: str, value: NDArray | list[NDArray], out: NDArray | list[NDArray], priority: int
    ) -> None:
        """Sum `value`, of one device or several, over all workers into `out`, without waiting for the result."""
        assert self._store is not None
        one = value[0] if isinstance(value, list) else value
        known = (label, one.shape, np.dtype(one.dtype).name)
        if known not in self._keys:  # a key can be made once, and for one shape
            self._keys[known] = len(self._keys)
            self._store.init(self._keys[known], nd.zeros(one.shape, dtype=one.dtype))
        self._store.pushpull(self._keys[known], value, out=out, priority=priority)


class _TrainerStore(KVStoreBase):
    """Sums of a Trainer's gradients; it is the worker that updates, with its own learning rate."""

    type = "dist_device_sync"

    def __init__(self, cluster: Cluster, names: Sequence[str]) -> None:
        self._cluster, self._names = cluster, names

    def is_capable(self, capability: str) -> bool:
        """Nothing but sums."""
        return False

    def broadcast(self, key: int, value: NDArray, out: list[NDArray], priority: int = 0) -> None:
        """Nothing: parameters are drawn or loaded equal on every worker, which `require_equal` has seen."""

    def pushpull(self, key: int, value: list[NDArray], out: list[NDArray] | None = None, priority: int = 0) -> None:
        """Gradients of parameter number `key` of all devices and workers into `out`, or in place."""
        self._cluster.push_pull(self._names[key], value, value if out is None else out, priority)


@functools.cache
def here() -> Cluster:
    """The cluster that this process is part of, for its whole life."""
    return Cluster()


def _leave(code: int) -> None:
    """End without the kvstore's farewell, which would wait for workers that have ended."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
