"""What the NVIDIA driver says about the GPUs, and whether MXNet 1.9.1 can run on them.

Calls the CUDA driver API (libcuda.so.1) through ctypes, without MXNet and without taking memory of a GPU.
"""

from __future__ import annotations

import ctypes
from importlib import metadata
from typing import NamedTuple

from gan_kd.errors import RunError

# Compute capabilities that libmxnet.so of mxnet-cu112 1.9.1 holds machine code for, read from its fat
# binaries. They hold no PTX, which a driver could translate for newer GPUs.
MACHINE_CODE = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))
OLDEST_CUDA = (11, 0)  # CUDA 11.8 libraries run on the drivers of any CUDA 11
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


class Gpu(NamedTuple):
    """One GPU: `capability` is its compute capability (major, minor), `memory` its size in bytes."""

    name: str
    capability: tuple[int, int]
    memory: int

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability[0]}.{self.capability[1]})"


class Driver(NamedTuple):
    """The NVIDIA driver: the newest CUDA version (major, minor) that it serves, and the GPUs it shows."""

    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]


def read_driver() -> Driver:
    """Ask the driver. RunError: there is none (the library does not load), or it does not answer."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RunError("there is no NVIDIA driver on this machine (libcuda.so.1 does not load)") from error
    version, count = ctypes.c_int(), ctypes.c_int()
    _call(cuda, "cuInit", 0)
    _call(cuda, "cuDriverGetVersion", ctypes.byref(version))
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    gpus = tuple(_read_gpu(cuda, index) for index in range(count.value))
    return Driver((version.value // 1000, version.value % 1000 // 10), gpus)


def _read_gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory, name = ctypes.c_size_t(), ctypes.create_string_buffer(256)
    _call(cuda, "cuDeviceGet", ctypes.byref(device), index)
    _call(cuda, "cuDeviceGetName", name, len(name), device)
    _call(cuda, "cuDeviceGetAttribute", ctypes.byref(major), _CAPABILITY_MAJOR, device)
    _call(cuda, "cuDeviceGetAttribute", ctypes.byref(minor), _CAPABILITY_MINOR, device)
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return Gpu(name.value.decode(), (major.value, minor.value), memory.value)


def _call(cuda: ctypes.CDLL, function: str, *arguments: object) -> None:
    code = getattr(cuda, function)(*arguments)
    if code == 100:  # CUDA_ERROR_NO_DEVICE
        raise RunError("the NVIDIA driver shows no GPU (see nvidia-smi and CUDA_VISIBLE_DEVICES)")
    if code:
        raise RunError(f"the NVIDIA driver does not work: {function} gives error {code} (see nvidia-smi)")


def hardware_problem(index: int) -> str | None:
    """Why GPU `index` cannot run MXNet 1.9.1, whichever build is installed; None where it can."""
    try:
        driver = read_driver()
    except RunError as error:
        return str(error)
    if index >= len(driver.gpus):
        return f"the NVIDIA driver shows {len(driver.gpus)} GPU(s), counted from 0 (see CUDA_VISIBLE_DEVICES)"
    gpu = driver.gpus[index]
    # Machine code of capability x.y runs on x.z for every z >= y, and on no other x.
    if not any(gpu.capability[0] == major and gpu.capability[1] >= minor for major, minor in MACHINE_CODE):
        return (
            f"MXNet 1.9.1 holds no machine code for {gpu}, only for capabilities 5.0 to 8.9"
            " (GTX 900 to RTX 40 series, P100, V100, T4, A100, L4)"
        )
    if driver.cuda < OLDEST_CUDA:
        return "the NVIDIA driver serves CUDA {}.{}, and MXNet needs 11.0: update it".format(*driver.cuda)
    return None


def gpu_problem(index: int) -> str | None:
    """Why `mx.gpu(index)` cannot be used, as a sentence with the way out; None where it can."""
    problem = hardware_problem(index)
    if problem:
        return f"GPU {index} cannot be used: {problem}; take another GPU, or the CPU with --contexts cpu:0."
    if not any(name.startswith("mxnet-cu") for name in mxnet_wheels()):
        return f"GPU {index} cannot be used: MXNet's CPU build is installed; run bash scripts/setup.sh --gpu."
    return None


def mxnet_wheels() -> list[str]:
    """Names of the installed distributions that bring the package `mxnet`, sorted."""
    names = {(dist.metadata["Name"] or "").lower().replace("_", "-") for dist in metadata.distributions()}
    return sorted(name for name in names if name == "mxnet" or name.startswith("mxnet-"))
