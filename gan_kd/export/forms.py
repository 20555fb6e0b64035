"""The forms of a network on disk, each with what runs it: a row of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.ndarray import NDArray

from gan_kd.data.sizes import Sizes
from gan_kd.detectors.base import Detector
from gan_kd.evaluation.evaluate import Detect, as_rows
from gan_kd.export import int8 as integers
from gan_kd.export import mxnet as symbol
from gan_kd.export import onnx as onnx_files
from gan_kd.gluon import macs as cost

BATCH = 8  # images of a timed pass


@dataclass(frozen=True)
class Form:
    """A network as files. `sizes`: of its input. `parameters`, `macs`: as of `gluon.macs.count`.

    run: a forward pass of BATCH images, done when it returns. detect: for the mAP; None where it gives no detections.
    """

    name: str
    files: Sequence[Path]
    sizes: Sizes
    parameters: int
    macs: int
    run: Callable[[], object]
    detect: Detect | None


def as_symbol(name: str, detector: Detector, prefix: Path, images: np.ndarray) -> Form:
    """Writes a detector on the CPU as MXNet's two files. RunError where they do not detect the very same.

    images: (N,3,S,S) as the network takes them, here and below; the first are timed.
    """
    symbol.save(symbol.trace(detector), prefix)
    symbol.require_equal(prefix, detector, images[:BATCH])
    return _of_symbol(name, prefix, detector.sizes, cost.count(detector, (1, 3, *detector.sizes.typical)), images)


def as_int8(like: Form, detector: Detector, prefix: Path, ranges: np.ndarray, images: np.ndarray) -> Form:
    """Writes the quantised detector as MXNet's two files; ranges: images (N,3,S,S) to calibrate with."""
    symbol.save(integers.quantize(detector, ranges), prefix)
    return _of_symbol(f"{like.name}, int8", prefix, like.sizes, (like.parameters, like.macs), images)


def as_onnx(like: Form, detector: Detector, plain: Path, suppressing: Path, images: np.ndarray) -> list[Form]:
    """Writes both ONNX files of a detector on the CPU."""
    onnx_files.save(detector, plain, suppressing)
    batch = _batch(images)
    net, raw = onnx_files.session(suppressing), onnx_files.session(plain)

    def detect(given: NDArray) -> NDArray:
        ids, scores, boxes = onnx_files.run(net, given.asnumpy())
        return mx.nd.array(np.concatenate((boxes, ids, scores), axis=2))

    run, run_raw = (partial(onnx_files.run, session, batch) for session in (net, raw))
    return [
        replace(like, name=f"{like.name}, ONNX", files=[suppressing], run=run, detect=detect),
        replace(like, name=f"{like.name}, ONNX without suppression", files=[plain], run=run_raw, detect=None),
    ]


def _of_symbol(name: str, prefix: Path, sizes: Sizes, counted: tuple[int, int], images: np.ndarray) -> Form:
    net = symbol.load(prefix)
    batch = mx.nd.array(_batch(images))

    def detect(given: NDArray) -> NDArray:
        return as_rows(*net(given))

    return Form(name, symbol.files(prefix), sizes, *counted, lambda: detect(batch).wait_to_read(), detect)


def _batch(images: np.ndarray) -> np.ndarray:
    """BATCH images, again from the first where there are fewer."""
    return images[np.arange(BATCH) % len(images)]
