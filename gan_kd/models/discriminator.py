"""D-Net: one small convolutional critic for each feature map (paper, figure 2).

The paper does not give kernels, norm and activation. We take those of the DCGAN discriminator in the
repository of WGAN, where the paper's argument names come from: 4x4 stride 2 to halve, BatchNorm but on the
first block, LeakyReLU 0.2, no bias, weights from N(0, 0.02) and the scales of the norm from N(1, 0.02).
"""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

NORMS = ("batch", "none", "instance")


class Discriminator(HybridBlock):
    """Map (N,channels,size,size) -> scores (N,), unbounded; several such maps -> as many scores.

    Several maps go through the convolutions as one batch, but BatchNorm takes the statistics of each by itself: the
    scores and gradients are those of as many passes.

    With the paper's L_D = mean[D(T(x)) - D(S(x))] minimised, teacher maps come to score low, student maps
    high.

    The first block keeps the size (3x3, but 1x1 on a 1x1 map), each further one halves it, rounding down,
    until it is 2 or less, and a convolution covers what is left: blocks of 16, 8, 4, 2 for a 16x16 map, as
    in figure 2.

    width: channels of every block. norm: 'batch', 'none' or 'instance', which skips 1x1 maps: it would turn
    each of them into a constant.
    """

    def __init__(self, channels: int, size: int, width: int = 512, norm: str = "batch") -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {norm!r}")
        with self.name_scope():
            self.layers = nn.HybridSequential(prefix="")
            kernel = 3 if size > 1 else 1
            self.layers.add(_conv(channels, width, kernel, 1, kernel // 2), nn.LeakyReLU(0.2))
            while size > 2:
                size //= 2
                self.layers.add(_conv(width, width, 4, 2, 1))
                if norm == "batch":
                    self.layers.add(nn.BatchNorm(in_channels=width, gamma_initializer=_AroundOne()))
                elif norm == "instance" and size > 1:
                    self.layers.add(nn.InstanceNorm(in_channels=width, scale=True, gamma_initializer=_AroundOne()))
                self.layers.add(nn.LeakyReLU(0.2))
            self.layers.add(_conv(width, 1, size, 1, 0))

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        def apart(x):  # type: ignore[no-untyped-def]
            return F.split(x, num_outputs=len(maps), axis=0)

        if len(maps) == 1:
            return self.layers(*maps).reshape((-1,))
        x = F.concat(*maps, dim=0)
        for layer in self.layers:
            by_itself = isinstance(layer, nn.BatchNorm)
            x = F.concat(*[layer(part) for part in apart(x)], dim=0) if by_itself else layer(x)
        return list(apart(x.reshape((-1,))))


class DNet(HybridBlock):
    """Maps (N,channels[i],sizes[i],sizes[i]) -> list of scores (N,), by one Discriminator for each map."""

    def __init__(self, channels: Sequence[int], sizes: Sequence[int], width: int = 512, norm: str = "batch") -> None:
        super().__init__()
        with self.name_scope():
            self.discriminators = nn.HybridSequential(prefix="")
            for shape in zip(channels, sizes):
                self.discriminators.add(Discriminator(*shape, width=width, norm=norm))

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        return [score(x) for score, x in zip(self.discriminators, maps)]


class RealAndFake(HybridBlock):
    """k maps of the teacher, then k of the student -> k scores (N,) of the teacher's, then k of the student's.

    In one pass through each critic of a DNet, whose parameters it shares. A block of its own, because a compiled graph
    has a fixed number of inputs and DNet's scores one side alone.
    """

    def __init__(self, dnet: DNet) -> None:
        super().__init__()
        self.dnet = dnet

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        half = len(maps) // 2
        pairs = zip(self.dnet.discriminators, maps[:half], maps[half:])
        real, fake = zip(*[score(*pair) for score, *pair in pairs])
        return [*real, *fake]


class _AroundOne(mx.init.Initializer):
    """N(1, 0.02)."""

    def _init_weight(self, _: str, array: mx.nd.NDArray) -> None:
        array[:] = mx.nd.random.normal(1, 0.02, shape=array.shape)


def _conv(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Conv2D:
    return nn.Conv2D(
        outputs,
        kernel,
        stride,
        padding,
        in_channels=inputs,
        use_bias=False,
        weight_initializer=mx.init.Normal(0.02),
    )
