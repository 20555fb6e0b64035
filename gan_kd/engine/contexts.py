"""Devices: from names to MXNet contexts, and a batch split over them."""

from __future__ import annotations

from typing import Sequence

import mxnet as mx
import numpy as np
from mxnet import nd
from mxnet.ndarray import NDArray

from gan_kd.gpu import gpu_problem
from gan_kd.errors import UsageError


def open_contexts(names: Sequence[str]) -> list[mx.Context]:
    """Contexts for names such as gpu:0 or cpu:1. UsageError for a device that is not there or cannot run MXNet."""
    contexts = []
    for name in names:
        kind, _, index = name.partition(":")
        if kind not in ("cpu", "gpu") or not (index or "0").isdigit():
            raise UsageError(f"train.contexts: {name!r} is no device; write gpu:0 or cpu:0")
        number = int(index or 0)
        if kind == "gpu":
            _require_gpu(number)
        contexts.append(mx.Context(kind, number))
    if len(set(contexts)) != len(contexts):
        raise UsageError(f"train.contexts: {', '.join(names)} names a device twice")
    return contexts


def _require_gpu(number: int) -> None:
    """UsageError where GPU `number` cannot be used, with the reason."""
    present = mx.context.num_gpus() if mx.runtime.Features().is_enabled("CUDA") else 0
    if number >= present:
        reason = (
            f"MXNet sees {present} GPU(s)"
            if mx.runtime.Features().is_enabled("CUDA")
            else "the installed MXNet is the CPU build"
        )
        raise UsageError(
            f"gpu:{number} is not there: {reason}; run `python -m gan_kd doctor`, or train with --contexts cpu:0"
        )
    problem = gpu_problem(number)
    if problem:
        raise UsageError(problem)


def split(array: np.ndarray, contexts: Sequence[mx.Context]) -> list[NDArray]:
    """Rows of a batch, one share a context; shares differ by one row at most, in order."""
    return [nd.array(part, ctx=ctx, dtype=array.dtype) for part, ctx in zip(np.array_split(array, len(contexts)), contexts)]
