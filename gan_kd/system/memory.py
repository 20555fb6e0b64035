"""Main memory: what a process can still take, from the system or within its control group, and giving it back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import mxnet as mx

GB = 10**9
_GROUPS = Path("/sys/fs/cgroup")
# Files of a control group of version 2 and 1: its limit, what it takes, and the part of that which files fill.
_VERSIONS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory(proc: Path = Path("/proc"), groups: Path = _GROUPS) -> float:
    """Bytes, the least of what the system and each control group around this process leave; inf where nobody says."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", (proc / "meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    system = 1024.0 * int(found[1]) if found else math.inf
    return min([system, *(_left(folder) for folder in _folders(proc, groups))])


def _folders(proc: Path, groups: Path) -> Iterator[Path]:
    """Folders of the control groups of memory that this process is in, up to the root."""
    try:
        lines = (proc / "self" / "cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = groups / "memory" if controllers else groups
        inner = root / path.strip("/")
        # In a container the path is often the one outside of it, and the root is its own group.
        yield from (folder for folder in (inner, *inner.parents) if folder == root or root in folder.parents)


def _left(folder: Path) -> float:
    for limit, usage, cache in _VERSIONS:
        try:
            most = (folder / limit).read_text().strip()
            taken = int((folder / usage).read_text())
            stat = re.search(rf"^{cache} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        except (OSError, ValueError):
            continue
        if most.isdigit():
            # Files read lately are dropped when memory runs short.
            return max(0.0, float(int(most) - taken + (int(stat[1]) if stat else 0)))
    return math.inf


def expect_many_sizes() -> None:
    """Have MXNet keep the kernels of few input sizes, before the first pass of a network whose inputs differ in size.

    Else it keeps those of every size that it meets, some megabytes each, and a training on photographs meets hundreds.
    The limit counts for each kind of operator; oneDNN's own store, of 1,024 kernels, goes on serving what comes again.
    """
    os.environ.setdefault("MXNET_MKLDNN_CACHE_NUM", "100")


def release_memory() -> None:
    """Give back what nobody uses: Gluon's blocks are cycles, and freed maps stay in the C library's heap."""
    gc.collect()
    mx.nd.waitall()
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)
