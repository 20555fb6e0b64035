"""The extractor: backbone with extra layers, image -> feature maps (paper, algorithm, steps 1 and 2)."""

from __future__ import annotations

import mxnet as mx
from mxnet.gluon import HybridBlock

from gan_kd.detectors.base import Extractor, Level

Shape = tuple[int, ...]


class SSDExtractor(Extractor):
    """Image (N,3,size,size) float32 -> list of feature maps (N,channels[i],sizes[i],sizes[i]) float32.

    features: the `features` block of a GluonCV SSD; its parameters are shared, not copied.
    size: side of the input in px. All levels are neck: the head takes the tapped maps of the backbone as well.
    """

    def __init__(self, features: HybridBlock, size: int) -> None:
        maps = infer_shapes(features, size)[1]
        super().__init__([Level("neck", channels, size / side, side) for _, channels, _, side in maps])
        self.features = features
        self.size = size

    def hybrid_forward(self, F, x):  # type: ignore[no-untyped-def]
        return self.features(x)


def infer_shapes(features: HybridBlock, size: int) -> tuple[dict[str, Shape], list[Shape]]:
    """Shapes of the parameters, by name, and of the maps of a block on a (1,3,size,size) image.

    Read from the graph: nothing is computed, and the parameters need not be initialised.
    """
    graph = mx.sym.Group(features(mx.sym.var("data")))
    arguments, maps, states = graph.infer_shape(data=(1, 3, size, size))
    shapes = dict(zip(graph.list_arguments() + graph.list_auxiliary_states(), arguments + states))
    del shapes["data"]
    return shapes, maps
