"""Devices: from names to MXNet contexts, and a batch split over them."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
import numpy as np
from mxnet import nd
from mxnet.contrib.amp import amp
from mxnet.ndarray import NDArray

from gan_kd.errors import UsageError
from gan_kd.system.gpu import gpu_problem


def open_contexts(names: Sequence[str]) -> list[mx.Context]:
    """Contexts for train.contexts of a recipe, which has checked how they are written (gpu:0, cpu:1).

    UsageError for a GPU that is not there or cannot run MXNet.
    """
    contexts = []
    for name in names:
        kind, _, number = name.partition(":")
        problem = gpu_problem(int(number)) if kind == "gpu" else None
        if problem:
            raise UsageError(problem)
        contexts.append(mx.Context(kind, int(number)))
    return contexts


def start_amp() -> None:
    """Mixed precision for every network that is made from now on in this process: MXNet knows no way back."""
    amp.init("float16")


def amp_started() -> bool:
    """Whether `start_amp` was called, so that gradients are to be scaled."""
    return amp._amp_initialized


def full(array: NDArray) -> NDArray:
    """The array in float32 at least: sums of squares over a map, and losses, do not fit into float16."""
    return array.astype("float32") if np.dtype(array.dtype).itemsize < 4 else array


def split(array: np.ndarray, contexts: Sequence[mx.Context]) -> list[NDArray]:
    """Rows of a batch, one share a context; shares differ by one row at most, in order."""
    shares = np.array_split(array, len(contexts))
    return [nd.array(share, ctx=context, dtype=array.dtype) for share, context in zip(shares, contexts)]
