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
KINDS = ("image", "cell", "patch")
_HALVINGS = 2  # blocks that halve a map of unknown size


class Critic(HybridBlock):
    """What the critics of a DNet have in common: `layers` of convolutions, LeakyReLU and norms, run on several maps.

    One map -> scores; several maps of equal shape -> as many scores, then, with `hidden`, what each LeakyReLU gives,
    layer by layer for each map. Several maps go through the convolutions as one batch.
    """

    #: Whether every cell has a score of its own.
    cells = False
    #: Whether a map's score is the mean of what the layers give for its parts.
    averages = False

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
        return x.mean(axis=(1, 2, 3)) if self.averages else x.reshape((-1,))


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


class PatchCritic(Critic):
    """Map (N,channels,H,W) of any size -> scores (N,): the mean over the cells of what a 3x3 patch around each gives.

    The critic that the paper's author released in 2020 for detectors with maps of any size: a 3x3 block that keeps the
    size, two 1x1 blocks, a 1x1 convolution; every block with norm. Here the mean is taken, which is commented out
    there, norms have the block's width, and LeakyReLU 0.2 stands for ReLU, as in the other critics. norm: as in
    Discriminator.
    """

    averages = True

    def __init__(self, channels: int, width: int = 512, norm: str = "batch", hidden: bool = False) -> None:
        super().__init__(norm, hidden)
        with self.name_scope():
            for inputs, kernel in ((channels, 3), (width, 1), (width, 1)):
                self.layers.add(_conv(inputs, width, kernel, 1, kernel // 2), *_norms(norm, width), nn.LeakyReLU(0.2))
            self.layers.add(_conv(width, 1, 1, 1, 0))


class Discriminator(Critic):
    """Map (N,channels,size,size) -> scores (N,), unbounded; several such maps -> as many scores.

    Several maps go through the convolutions as one batch, but BatchNorm takes the statistics of each by itself: the
    scores and gradients are those of as many passes.

    With the paper's L_D = mean[D(T(x)) - D(S(x))] minimised, teacher maps come to score low, student maps
    high.

    The first block keeps the size (3x3, but 1x1 on a 1x1 map), each further one halves it, rounding down,
    until it is 2 or less, and a convolution covers what is left: blocks of 16, 8, 4, 2 for a 16x16 map, as
    in figure 2. size None: maps (N,channels,H,W) of any size, at least 4x4; figure 2 does not fit them, so two blocks
    halve, a 1x1 convolution follows, and the mean over the cells is the score, which no size of an image enlarges.

    width: channels of every block. norm: 'batch', 'none', 'joint' (BatchNorm over all maps of a pass together) or
    'instance', which skips 1x1 maps: it would turn each of them into a constant. hidden: as in Critic.
    """

    def __init__(
        self, channels: int, size: int | None, width: int = 512, norm: str = "batch", hidden: bool = False
    ) -> None:
        super().__init__(norm, hidden)
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {norm!r}")
        self.averages = size is None
        sides = [None] * _HALVINGS if size is None else _halved(size)
        with self.name_scope():
            kernel = 1 if size == 1 else 3
            self.layers.add(_conv(channels, width, kernel, 1, kernel // 2), nn.LeakyReLU(0.2))
            for side in sides:
                self.layers.add(_conv(width, width, 4, 2, 1))
                if norm != "instance" or side != 1:
                    self.layers.add(*_norms(norm, width))
                self.layers.add(nn.LeakyReLU(0.2))
            left = 1 if size is None else [size, *sides][-1]
            self.layers.add(_conv(width, 1, left, 1, 0))


def _halved(size: int) -> list[int]:
    """Sides after each block that halves, rounding down, until 2 or less."""
    sides = []
    while size > 2:
        size //= 2
        sides.append(size)
    return sides


class DNet(HybridBlock):
    """Maps (N,channels[i],sizes[i],sizes[i]) -> list of scores, by one critic for each map.

    sizes: None where a map's size is not known before. kind: 'image', a Discriminator, 'cell', a CellCritic, or
    'patch', a PatchCritic. hidden: RealAndFake gives hidden layers too.
    """

    def __init__(
        self,
        channels: Sequence[int],
        sizes: Sequence[int | None],
        width: int = 512,
        norm: str = "batch",
        kind: str = "image",
        hidden: bool = False,
    ) -> None:
        super().__init__()
        with self.name_scope():
            self.discriminators = nn.HybridSequential(prefix="")
            for count, size in zip(channels, sizes):
                if kind == "cell":
                    critic: Critic = CellCritic(count, width, hidden)
                elif kind == "patch":
                    critic = PatchCritic(count, width, norm, hidden)
                else:
                    critic = Discriminator(count, size, width, norm, hidden)
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


def _norms(norm: str, width: int) -> list[HybridBlock]:
    """The norm behind a convolution, if there is any."""
    if norm in ("batch", "joint"):
        return [nn.BatchNorm(in_channels=width, gamma_initializer=_AroundOne())]
    if norm == "instance":
        return [nn.InstanceNorm(in_channels=width, scale=True, gamma_initializer=_AroundOne())]
    return []


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
