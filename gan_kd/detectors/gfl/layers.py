"""Layers of GFL's head that Gluon lacks: GroupNorm with an affine map per channel, and a learned scalar."""

from __future__ import annotations

from typing import Any

import mxnet as mx
from mxnet import autograd, nd
from mxnet.gluon import HybridBlock
from mxnet.ndarray import NDArray


class GroupNorm(HybridBlock):
    """Group normalisation with scale and shift of each channel (Wu and He, arXiv 1803.08494, equation 7).

    (N,C,H,W) -> the same shape; C has to be a multiple of `groups`. Gluon's GroupNorm has one scale per group.

    On arrays the groups become the channels of a BatchNorm in training mode, four times as fast on a CPU as MXNet's
    GroupNorm operator. Its statistics have as many entries as the batch has groups, which a compiled graph cannot
    hold: there it is InstanceNorm, slower and exportable to ONNX.
    """

    def __init__(self, channels: int, groups: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.groups, self.epsilon = channels, groups, epsilon
        with self.name_scope():
            self.gamma = self.params.get("gamma", shape=(channels, 1, 1, 1), init="ones")
            self.beta = self.params.get("beta", shape=(channels,), init="zeros")

    def hybrid_forward(self, F: Any, x: Any, gamma: Any, beta: Any) -> Any:
        normalised = self._array(x) if isinstance(x, NDArray) else self._symbol(F, x)
        # A depthwise convolution: broadcast_mul and broadcast_add would take eight times as long with their gradients.
        return F.Convolution(
            normalised,
            gamma,
            beta,
            kernel=(1, 1),
            num_filter=self.channels,
            num_group=self.channels,
        )

    def _array(self, x: NDArray) -> NDArray:
        rows = x.shape[0] * self.groups
        ones, zeros = (make((rows,), ctx=x.context, dtype=x.dtype) for make in (nd.ones, nd.zeros))
        with autograd.train_mode():  # the statistics are the input's own, in training or not
            normalised = nd.BatchNorm(
                x.reshape((1, rows, -1, x.shape[3])), ones, zeros, zeros.copy(), ones.copy(), eps=self.epsilon
            )
        return normalised.reshape(x.shape)

    def _symbol(self, F: Any, x: mx.sym.Symbol) -> mx.sym.Symbol:
        groups = x.reshape((0, self.groups, -1))
        ones, zeros = F.ones((self.groups,)), F.zeros((self.groups,))
        return F.reshape_like(F.InstanceNorm(groups, ones, zeros, eps=self.epsilon), x)


class Scale(HybridBlock):
    """Any array times one learned number, which starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.scale = self.params.get("scale", shape=(1,), init="ones")

    def hybrid_forward(self, F: Any, x: Any, scale: Any) -> Any:
        return F.broadcast_mul(x, scale.reshape((1, 1, 1, 1)))
