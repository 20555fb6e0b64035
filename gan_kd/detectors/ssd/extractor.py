"""The extractor: backbone with extra layers, image -> feature maps (paper, algorithm, steps 1 and 2)."""

from __future__ import annotations

import mxnet as mx
from mxnet.gluon import HybridBlock

from gan_kd.detectors.base import Level

Shape = tuple[int, ...]


class Extractor(HybridBlock):
    """Image (N,3,size,size) float32 -> list of feature maps (N,channels[i],sizes[i],sizes[i]) float32.

    features: the `features` block of a GluonCV SSD; its parameters are shared, not copied.
    size: side of the input in px. All that follows is known before the first batch.

    channels: channels of each map.
    sizes: side of each map in cells; maps are square.
    strides: px of the input that a cell stands for, size / side.
    """

    def __init__(self, features: HybridBlock, size: int) -> None:
        super().__init__()
        self.features = features
        self.size = size
        maps = infer_shapes(features, size)[1]
        self.channels = [channels for _, channels, _, _ in maps]
        self.sizes = [side for _, _, side, _ in maps]
        self.strides = [size / side for side in self.sizes]

    @property
    def levels(self) -> list[Level]:
        """What is known of each map; all are the neck's, since the head takes all of them."""
        return [Level("neck", *one) for one in zip(self.channels, self.strides, self.sizes)]

    def freeze(self) -> None:
        """Ends the gradients of its parameters.

        BatchNorm statistics are no gradients: they stay as they are only while it runs outside
        `autograd.record`.
        """
        self.collect_params().setattr("grad_req", "null")

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
