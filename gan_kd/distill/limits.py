"""How a critic is held, other than by the clamp: spectral norms by projection, and WGAN-GP's penalty."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
import numpy as np
from mxnet import autograd, nd
from mxnet.gluon import nn
from mxnet.ndarray import NDArray

from gan_kd.distill.base import Maps
from gan_kd.distill.discriminator import Critic, DNet


class Spectral:
    """Holds the spectral norm of every convolution of D, seen as a matrix (outputs, inputs x kernel), at 1 or below.

    By projection, W / max(1, s), on the weights themselves (Gouk et al. 2018, arXiv 1804.04368, algorithm 2), with one
    power iteration a step to follow s (Miyato et al. 2018, algorithm 1). The first s is exact.
    """

    def __init__(self, dnet: DNet) -> None:
        self._weights = {name: p for name, p in dnet._collect_params_with_prefix().items() if name.endswith("weight")}
        # The leading left singular vector of each weight, on every device.
        self._vectors: dict[str, list[NDArray]] = {}
        for name, parameter in self._weights.items():
            matrix = parameter.list_data()[0].asnumpy()
            left, values, _ = np.linalg.svd(matrix.reshape(len(matrix), -1), full_matrices=False)
            parameter.set_data(nd.array(matrix / max(1.0, values[0])))
            self._vectors[name] = [nd.array(left[:, 0], ctx=context) for context in parameter.list_ctx()]

    def project(self) -> None:
        """One power iteration and the projection of every weight, in place on every device."""
        for name, parameter in self._weights.items():
            for device, weight in enumerate(parameter.list_data()):
                matrix = weight.reshape((weight.shape[0], -1))
                right = _unit(nd.dot(self._vectors[name][device], matrix))
                left = nd.dot(matrix, right)
                norm = nd.norm(left)
                self._vectors[name][device] = left / (norm + 1e-12)
                weight /= nd.maximum(norm, 1)

    def state(self) -> dict[str, NDArray]:
        """The singular vectors; every device holds the same."""
        return {name: vectors[0] for name, vectors in self._vectors.items()}

    def load_state(self, state: dict[str, NDArray]) -> None:
        """Put back what `state` gave."""
        for name, parameter in self._weights.items():
            self._vectors[name] = [state[name].as_in_context(context) for context in parameter.list_ctx()]


def _unit(vector: NDArray) -> NDArray:
    return vector / (nd.norm(vector) + 1e-12)


def penalise(dnet: DNet, points: Maps, given: bool, scale: float) -> NDArray:
    """Add the gradient of `scale` x sum over maps and samples of (slope - 1)^2 to D's on this device; its value (1,).

    The slope is the norm of the score's gradient at a point of `points`, (n, C, S, S) a map; of a critic that scores
    cells, of each cell's score at this cell, and the cells' mean counts (WGAN-GP, Gulrajani et al. 2017, equation 3).
    given: the second half of the channels is a condition, and the slope at it does not count.

    MXNet has no second-order gradient of a convolution. But the gradient of a critic of convolutions and LeakyReLU is
    itself a chain of convolutions, with turned kernels, and of factors that do not change around the point; of that
    chain first-order gradients for the weights are all that is needed.
    """
    context = points[0].context
    weights = [p for critic in dnet.discriminators for p in critic.collect_params().values() if _is_weight(p)]
    with autograd.record():
        excess = []
        for critic, point in zip(dnet.discriminators, points):
            slope = input_gradient(critic, point)
            if given:
                slope = slope.slice_axis(axis=1, begin=0, end=point.shape[1] // 2)
            squares = nd.sum(nd.square(slope), axis=1 if critic.cells else (1, 2, 3))
            norms = nd.sqrt(squares + 1e-12).reshape((len(point), -1))
            excess.append(nd.sum(nd.mean(nd.square(norms - 1), axis=1)))
        total = nd.add_n(*excess) * scale
    # By itself and not with the loss: both in one backward pass crash MXNet.
    for parameter, gradient in zip(weights, autograd.grad([total], [p.data(context) for p in weights])):
        parameter.grad(context)[:] += gradient
    return total.detach()


def _is_weight(parameter: mx.gluon.Parameter) -> bool:
    return parameter.name.endswith("weight")


def input_gradient(critic: Critic, point: NDArray) -> NDArray:
    """Gradient of the sum of a critic's scores at a map (n, C, S, S), recorded as a function of the weights.

    The critic has convolutions and LeakyReLU alone; LeakyReLU's factors are taken at the point.
    """
    layers = list(critic.layers)
    shapes, masks = [], []
    with autograd.pause():
        x = point
        for layer in layers:
            shapes.append(x.shape)
            masks.append(_factors(layer, x) if isinstance(layer, nn.LeakyReLU) else None)
            x = layer(x)
        slope = nd.ones_like(x) / (x.shape[2] * x.shape[3] if critic.averages else 1)
    for layer, shape, mask in zip(reversed(layers), reversed(shapes), reversed(masks)):
        slope = slope * mask if mask is not None else _transposed(layer, slope, shape)
    return slope


def _factors(layer: nn.LeakyReLU, x: NDArray) -> NDArray:
    """What LeakyReLU multiplies every element with."""
    ones = nd.ones_like(x)
    return nd.where(x > 0, ones, ones * layer._alpha)


def _transposed(layer: nn.Conv2D, slope: NDArray, shape: Sequence[int]) -> NDArray:
    """The gradient at the input, of this shape, of a convolution from that at its output.

    As a convolution with turned kernels over cells set a stride apart: the backward pass of MXNet's `Deconvolution`
    crashes on CPUs.
    """
    settings = layer._kwargs
    (side, _), (stride, _), (pad, _) = (settings[key] for key in ("kernel", "stride", "pad"))
    for axis in (3, 5) if stride > 1 else ():  # (n, C, h, w) -> (n, C, h, stride, w, stride), zeros but at the first
        slope = slope.expand_dims(3).expand_dims(5) if axis == 3 else slope
        slope = nd.concat(slope, *[nd.zeros_like(slope)] * (stride - 1), dim=axis)
    if stride > 1:
        slope = slope.reshape((slope.shape[0], slope.shape[1], slope.shape[2] * stride, -1))
    weight = nd.flip(layer.weight.data(slope.context).swapaxes(0, 1), axis=(2, 3))
    border = side - 1 - pad
    found = nd.Convolution(slope, weight, kernel=(side, side), pad=(border, border), num_filter=shape[1], no_bias=True)
    return found[:, :, : shape[2], : shape[3]]
