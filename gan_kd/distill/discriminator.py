"""D-Net: one small convolutional critic for each feature map (paper, figure 2).

The paper does not give kernels, norm and activation. We take those of the DCGAN discriminator in the
repository of WGAN, where the paper's argument names come from: 4x4 stride 2 to halve, BatchNorm but on the
first block, LeakyReLU 0.2, no bias, weights from N(0, 0.02) and the scales of the norm from N(1, 0.02).
"""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

NORMS = ("batch", "none", "instance", "joint")
KINDS = ("image", "cell")


class Critic(HybridBlock):
    """What the critics of a DNet have in common: `layers` of convolutions, LeakyReLU and norms, run on several maps.

    One map -> scores; several maps of equal shape -> as many scores, then, with `hidden`, what each LeakyReLU gives,
    layer by layer for each map. Several maps go through the convolutions as one batch.
    """

    #: Whether every cell has a score of its own.
    cells = False

    def __init__(self, norm: str, hidden: bool) -> None:
        super().__init__()
        self.norm, self.hidden = norm, hidden
        with self.name_scope():
            self.layers = nn.HybridSequential(prefix="")

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        def apart(x):  # type: ignore[no-untyped-def]
            parts = F.split(x, num_outputs=len(maps), axis=0)
            return parts if len(maps) > 1 else [parts]

        if len(maps) == 1 and not self.hidden:
            return self.scores(self.layers(*maps))
        x, layers = F.concat(*maps, dim=0), []
        for layer in self.layers:
            by_itself = isinstance(layer, nn.BatchNorm) and self.norm != "joint"
            x = F.concat(*[layer(part) for part in apart(x)], dim=0) if by_itself else layer(x)
            if isinstance(layer, nn.LeakyReLU):
                layers.append(x)
        found = list(apart(self.scores(x)))
        if self.hidden:
            found += [part for parts in zip(*map(apart, layers)) for part in parts]
        return found

    def scores(self, x):  # type: ignore[no-untyped-def]
        """The last layer's output as scores."""
        return x.reshape((-1,))


class CellCritic(Critic):
    """Map (N,channels,S,S) -> scores (N,S*S), one for each cell by its channels alone: 1x1 convolutions with bias.

    The critic of per-position patches (PatchGAN, Isola et al. 2017) with the smallest patch. No norm; weights as He et
    al. draw them for LeakyReLU.
    """

    cells = True

    def __init__(self, channels: int, width: int = 64, hidden: bool = False) -> None:
        super().__init__("none", hidden)
        with self.name_scope():
            for inputs in (channels, width):
                self.layers.add(_cell(inputs, width), nn.LeakyReLU(0.2))
            self.layers.add(_cell(width, 1))

    def scores(self, x):  # type: ignore[no-untyped-def]
        return x.reshape((0, -1))


class Discriminator(Critic):
    """Map (N,channels,size,size) -> scores (N,), unbounded; several such maps -> as many scores.

    Several maps go through the convolutions as one batch, but BatchNorm takes the statistics of each by itself: the
    scores and gradients are those of as many passes.

    With the paper's L_D = mean[D(T(x)) - D(S(x))] minimised, teacher maps come to score low, student maps
    high.

    The first block keeps the size (3x3, but 1x1 on a 1x1 map), each further one halves it, rounding down,
    until it is 2 or less, and a convolution covers what is left: blocks of 16, 8, 4, 2 for a 16x16 map, as
    in figure 2.

    width: channels of every block. norm: 'batch', 'none', 'joint' (BatchNorm over all maps of a pass together) or
    'instance', which skips 1x1 maps: it would turn each of them into a constant. hidden: as in Critic.
    """

    def __init__(self, channels: int, size: int, width: int = 512, norm: str = "batch", hidden: bool = False) -> None:
        super().__init__(norm, hidden)
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {norm!r}")
        with self.name_scope():
            kernel = 3 if size > 1 else 1
            self.layers.add(_conv(channels, width, kernel, 1, kernel // 2), nn.LeakyReLU(0.2))
            while size > 2:
                size //= 2
                self.layers.add(_conv(width, width, 4, 2, 1))
                if norm in ("batch", "joint"):
                    self.layers.add(nn.BatchNorm(in_channels=width, gamma_initializer=_AroundOne()))
                elif norm == "instance" and size > 1:
                    self.layers.add(nn.InstanceNorm(in_channels=width, scale=True, gamma_initializer=_AroundOne()))
                self.layers.add(nn.LeakyReLU(0.2))
            self.layers.add(_conv(width, 1, size, 1, 0))


class DNet(HybridBlock):
    """Maps (N,channels[i],sizes[i],sizes[i]) -> list of scores, by one critic for each map.

    kind: 'image', a Discriminator, or 'cell', a CellCritic. hidden: RealAndFake gives hidden layers too.
    """

    def __init__(
        self,
        channels: Sequence[int],
        sizes: Sequence[int],
        width: int = 512,
        norm: str = "batch",
        kind: str = "image",
        hidden: bool = False,
    ) -> None:
        super().__init__()
        with self.name_scope():
            self.discriminators = nn.HybridSequential(prefix="")
            for count, size in zip(channels, sizes):
                critic = (
                    CellCritic(count, width, hidden)
                    if kind == "cell"
                    else Discriminator(count, size, width, norm, hidden)
                )
                self.discriminators.add(critic)

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        return [_first(score(x)) for score, x in zip(self.discriminators, maps)]


class RealAndFake(HybridBlock):
    """k maps of the teacher, then k of the student -> k scores of the teacher's, then k of the student's.

    With hidden layers these follow, first those of the teacher's maps, then those of the student's, in one order.
    In one pass through each critic of a DNet, whose parameters it shares. A block of its own, because a compiled graph
    has a fixed number of inputs and DNet's scores one side alone.
    """

    def __init__(self, dnet: DNet) -> None:
        super().__init__()
        self.dnet = dnet

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        half = len(maps) // 2
        pairs = zip(self.dnet.discriminators, maps[:half], maps[half:])
        outputs = [critic(*pair) for critic, *pair in pairs]
        real, fake = zip(*[parts[:2] for parts in outputs])
        hidden = [parts[2:] for parts in outputs]
        of_real = [layer for layers in hidden for layer in layers[: len(layers) // 2]]
        of_fake = [layer for layers in hidden for layer in layers[len(layers) // 2 :]]
        return [*real, *fake, *of_real, *of_fake]


def _first(outputs):  # type: ignore[no-untyped-def]
    """The scores of one map, hidden layers left out."""
    return outputs[0] if isinstance(outputs, list) else outputs


class _AroundOne(mx.init.Initializer):
    """N(1, 0.02)."""

    def _init_weight(self, _: str, array: mx.nd.NDArray) -> None:
        array[:] = mx.nd.random.normal(1, 0.02, shape=array.shape)


def _cell(inputs: int, outputs: int) -> nn.Conv2D:
    return nn.Conv2D(outputs, 1, in_channels=inputs, weight_initializer=mx.init.MSRAPrelu("in", slope=0.2))


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
