"""The detector as MXNet's two files, -symbol.json and -0000.params, which need neither this package nor GluonCV."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, SymbolBlock

from gan_kd.detectors.base import Detector
from gan_kd.errors import RunError
from gan_kd.system.paths import library_name

INPUT = "data"
#: Ends the name of a graph's file.
GRAPH = "-symbol.json"


class Graph(NamedTuple):
    """A network as its graph and the arrays that the graph names: weights, and running statistics (`states`)."""

    symbol: mx.sym.Symbol
    weights: dict[str, mx.nd.NDArray]
    states: dict[str, mx.nd.NDArray]


class Predictions(HybridBlock):
    """Image (N,3,S,S) float32 -> the head's predictions: the detector without its decoder.

    head: to stand for the detector's.
    """

    def __init__(self, detector: Detector, head: HybridBlock | None = None) -> None:
        super().__init__()
        self.extractor = detector.extractor
        self.adapters = detector.adapters
        self.head = detector.head if head is None else head

    def hybrid_forward(self, F, x):  # type: ignore[no-untyped-def]
        maps = self.extractor(x)
        maps = [maps[index] for index in self.extractor.to_head]
        if self.adapters is not None:
            maps = self.adapters(*maps)
        return self.head(*maps)


class Decoded(HybridBlock):
    """A network of predictions and a decoder: what Detector is, for predictions that are no longer Gluon's layers."""

    def __init__(self, predictions: HybridBlock, decoder: HybridBlock) -> None:
        super().__init__()
        self.predictions = predictions
        self.decoder = decoder

    def hybrid_forward(self, F, x):  # type: ignore[no-untyped-def]
        return self.decoder(*self.predictions(x))


def trace(block: HybridBlock) -> Graph:
    """The graph of a block on the CPU, with the arrays that it uses and no others."""
    symbol = mx.sym.Group(list(block(mx.sym.var(INPUT))))
    arrays = {name: parameter.data(mx.cpu()) for name, parameter in block.collect_params().items()}
    return Graph(
        symbol,
        {name: arrays[name] for name in symbol.list_arguments() if name != INPUT},
        {name: arrays[name] for name in symbol.list_auxiliary_states()},
    )


def save(graph: Graph, prefix: Path) -> list[Path]:
    """Writes PREFIX-symbol.json and PREFIX-0000.params; returns both."""
    with library_name(prefix.parent) as folder:
        mx.model.save_checkpoint(f"{folder}/{prefix.name}", 0, *graph)
    return files(prefix)


def files(prefix: Path) -> list[Path]:
    """The two files of a prefix."""
    return [prefix.with_name(f"{prefix.name}{end}") for end in (GRAPH, "-0000.params")]


def load(prefix: Path) -> SymbolBlock:
    """The network in two files: image (N,3,S,S) float32 -> ids (N,K,1), scores (N,K,1), boxes (N,K,4)."""
    with quiet(), library_name(prefix.parent) as folder:
        symbol, params = (f"{folder}/{file.name}" for file in files(prefix))
        net = SymbolBlock.imports(symbol, [INPUT], params)
    net.hybridize(static_alloc=True)
    return net


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Gluon's warning that it cannot tell the input's type; every network here takes float32."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cannot decide type")
        yield


def require_equal(prefix: Path, detector: Detector, images: np.ndarray) -> None:
    """RunError where the files do not give bit by bit what the detector gives for images (N,3,S,S)."""
    batch = mx.nd.array(images)
    detector.hybridize(static_alloc=True)  # as the files are run
    for ours, theirs in zip(detector(batch), load(prefix)(batch)):
        if not np.array_equal(ours.asnumpy(), theirs.asnumpy()):
            raise RunError(f"{files(prefix)[0].name}: its detections are not those of the params file; nothing is kept")
