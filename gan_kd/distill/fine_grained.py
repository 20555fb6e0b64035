"""Fine-grained Feature Imitation (Wang et al. 2019, arXiv 1906.03609): the maps' squared distance near objects."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
import numpy as np
from mxnet import nd
from mxnet.gluon import nn
from mxnet.ndarray import NDArray

from gan_kd.distill.base import Compared, Distiller, Seen
from gan_kd.distill.regions import FineGrainedRegions
from gan_kd.distributed.cluster import here
from gan_kd.gluon.optim import Position
from gan_kd.recipe import FineGrained as Config


def adaptation(config: Config, student: Sequence[int], teacher: Sequence[int]) -> nn.HybridSequential:
    """A convolution for each pair of maps, from the student's channels to the teacher's; nothing is drawn."""
    layers, kernel = nn.HybridSequential(), config.adapter.kernel
    activation = "relu" if config.adapter.relu else None
    for own, channels in zip(student, teacher):
        layers.add(nn.Conv2D(channels, kernel, padding=kernel // 2, in_channels=own, activation=activation))
    return layers


class FineGrained(Distiller):
    """weight / (2 N) x sum over images, cells near objects and channels of (adapt(S) - T)^2 (equations 4 and 5).

    N counts the cells near objects in the whole batch: with scope union those of all maps, with per_map each map's own,
    the losses of the maps added. A batch without any has loss 0; the published code divides by 0 there.

    adapt is a convolution behind every map of the student, also where channels agree, with the published first values:
    weights normal, cut at two deviations by the remainder, biases uniform within 1 / sqrt(inputs).
    """

    name = "fine_grained"
    needs = ("anchors",)
    adapts = True

    def __init__(self, config: Config, compared: Compared) -> None:
        """Draws the adaptation layers."""
        assert compared.anchors is not None  # `needs`
        self.config = config
        self.regions = FineGrainedRegions(compared.anchors, config.threshold, config.scope, config.inclusive)
        self.layers = adaptation(config, compared.student_channels, compared.channels)
        self.layers.initialize(ctx=list(compared.contexts))
        rng = np.random.default_rng(compared.seed)
        for layer in self.layers:
            layer.weight.set_data(nd.array(config.adapter.sigma * np.fmod(rng.standard_normal(layer.weight.shape), 2)))
            bound = 1 / np.sqrt(np.prod(layer.weight.shape[1:]))
            layer.bias.set_data(nd.array(rng.uniform(-bound, bound, layer.bias.shape)))
        self._batches = 0  # of the stage before this one

    def parameters(self) -> dict[str, mx.gluon.Parameter]:
        """The adaptation layers'."""
        return self.layers._collect_params_with_prefix()

    def update(self, seen: Sequence[Seen], batch_size: int, position: Position) -> dict[str, list[NDArray]]:
        """Nothing to train; notes whether the first batches are over."""
        self._batches = position.step
        return {}

    def losses(self, seen: Seen, batch_size: int) -> dict[str, NDArray]:
        """`shares` of one device."""
        return {name: parts[0] for name, parts in self.shares([seen], batch_size).items()}

    def shares(self, seen: Sequence[Seen], batch_size: int) -> dict[str, list[NDArray]]:
        """`fine_grained`, 0 in the first `quiet` batches."""
        scales = self._scales(seen)
        named = []
        for part in seen:
            sums = [
                _distance(layer(own), real, mask) * scale
                for layer, own, real, mask, scale in zip(self.layers, part.student, part.teacher, part.regions, scales)
            ]
            named.append(nd.add_n(*sums))
        return {self.name: named}

    def _scales(self, seen: Sequence[Seen]) -> list[float]:
        """Of each map what its sum of squares is multiplied by, of the whole batch."""
        counts = here().total([sum(float(mask.sum()) for mask in masks) for masks in _by_map(seen)])
        if self.config.scope == "union":
            counts = [sum(counts)] * len(counts)
        weight = self.config.weight if self._batches >= self.config.quiet else 0.0
        widths = [1] * len(counts)
        if self.config.normaliser == "elements":
            widths = [m.shape[1] for m in seen[0].teacher]
        return [weight / (2 * max(count, 1) * width) for count, width in zip(counts, widths)]

    def diagnose(self, seen: Sequence[Seen], batch_size: int) -> dict[str, list[float]]:
        """And `fine_grained_cells`: of each map the share of its cells that is near objects."""
        shares = [sum(float(mask.sum()) for mask in masks) / (batch_size * masks[0][0].size) for masks in _by_map(seen)]
        return {**super().diagnose(seen, batch_size), "fine_grained_cells": shares}


def _distance(adapted: NDArray, teacher: NDArray, mask: np.ndarray) -> NDArray:
    """Sum of squares over channels and the cells of the mask (n, h, w): (1,)."""
    squares = nd.sum(nd.square(adapted - teacher), axis=1)
    return nd.sum(squares * nd.array(mask, ctx=teacher.context, dtype=teacher.dtype))


def _by_map(seen: Sequence[Seen]) -> list[tuple[np.ndarray, ...]]:
    """Of each map the masks of all devices."""
    return list(zip(*(part.regions for part in seen)))
