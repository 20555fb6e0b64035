"""What MXNet 1.9.1 and GluonCV 0.10.5 need on today's Python, NumPy and CUDA wheels.

It has to be imported before both; `import gan_kd` sees to it. The import itself loads neither package, and repeating it
changes nothing.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path

import numpy as np

# NumPy 1.24 took these names away; MXNet still reads np.bool, GluonCV np.int and np.float.
_ALIASES = {"bool": bool, "int": int, "float": float}

# What libmxnet.so of mxnet-cu112 links, each after what it links itself. The other libraries of the wheels
# (cuBLASLt, the parts of cuDNN, NVRTC's builtins) are found by these through their own search path.
CUDA_LIBRARIES = (
    "cuda_runtime/lib/libcudart.so.11.0",
    "cublas/lib/libcublas.so.11",
    "cuda_nvrtc/lib/libnvrtc.so.11.2",
    "cudnn/lib/libcudnn.so.8",
    "cufft/lib/libcufft.so.10",
    "curand/lib/libcurand.so.10",
    "cusolver/lib/libcusolver.so.11",
    "nccl/lib/libnccl.so.2",
    "nvtx/lib/libnvToolsExt.so.1",
)

#: More threads than that no processor has cores for; their start alone would take minutes.
MOST_THREADS = 512


def restore_numpy_aliases() -> None:
    """Give NumPy the names back that MXNet and GluonCV use, where it lacks them."""
    for name, builtin in _ALIASES.items():
        if name not in vars(np):  # hasattr would warn: NumPy answers for these names itself
            setattr(np, name, builtin)


def site_packages() -> Path | None:
    """The folder that holds the package `mxnet`, found without importing it; None where it is not there."""
    spec = importlib.util.find_spec("mxnet")
    return Path(spec.origin).parents[1] if spec and spec.origin else None


def preload_cuda() -> list[str]:
    """Load the CUDA 11 libraries of the nvidia-* wheels beside MXNet, so that no CUDA toolkit is needed.

    Returns the loaded files relative to `site-packages/nvidia`: none with the CPU build, which comes without
    these wheels. A library without a wheel is left to the system's loader. OSError: a library is damaged.
    """
    packages = site_packages()
    found = [name for name in CUDA_LIBRARIES if packages and (packages / "nvidia" / name).is_file()]
    for name in found:
        ctypes.CDLL(f"{packages}/nvidia/{name}", mode=ctypes.RTLD_GLOBAL)
    return found


def tidy_threads() -> None:
    """Have OMP_NUM_THREADS as MXNet reads it, which ends the process over a list and over what is no small number.

    OpenMP takes a list, a number for each level of nested regions: the first is MXNet's. What OpenMP itself passes
    over is taken away.
    """
    given = os.environ.get("OMP_NUM_THREADS")
    if given is None:
        return
    first = given.partition(",")[0].strip()
    threads = int(first) if first.isascii() and first.isdecimal() and len(first) < 10 else 0
    if threads > 0:
        os.environ["OMP_NUM_THREADS"] = str(min(threads, MOST_THREADS))
    else:
        del os.environ["OMP_NUM_THREADS"]


def threads() -> int:
    """OpenMP threads of MXNet in this process: of OMP_NUM_THREADS, else the cores of this process."""
    tidy_threads()
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def set_default_threads(num_workers: int = 0) -> None:
    """Set OMP_NUM_THREADS where the user has not: the cores of this process, one of them left to loader workers.

    MXNet reads it when it is loaded, so call this before; without it, it takes half of the machine's cores.
    Processes that are started later inherit it. num_workers: of the loader, beside this process.
    """
    # A thread that has to wait for its core holds up all others at the end of every operator. Training mobilenet0.25 at
    # 128 px, batch 16, on two cores of which other work took a part: 74 to 82 images/s with one thread and 32 to 34
    # with two; beside a loader worker 39 to 80 and 19 to 29. On two quiet cores two threads gain less than that: 71
    # and 90 images/s (mobilenet0.5), beside a worker 12.0 and 11.5 s an epoch.
    tidy_threads()
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores - (num_workers > 0))))


tidy_threads()
restore_numpy_aliases()
preload_cuda()
