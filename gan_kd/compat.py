"""What MXNet 1.9.1 and GluonCV 0.10.5 need on today's Python, NumPy and CUDA wheels. Import it before both.

The import itself loads neither package, and repeating it changes nothing.
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


def set_default_threads() -> None:
    """Set OMP_NUM_THREADS to the cores that this process may use, where the user has not set it.

    MXNet reads it when it is loaded, so call this before; a process started later inherits it.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))


restore_numpy_aliases()
preload_cuda()
