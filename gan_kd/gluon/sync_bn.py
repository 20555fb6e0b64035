"""BatchNorm over the whole batch of several devices (train.sync_bn).

MXNet's own SyncBatchNorm stops a device's thread inside the operator until the others come to the same layer. Where
layers do not follow one from the other, as those of D-Net's critics, two devices may wait for each other's layers for
ever; and it counts each device alike, whatever its share of the batch. Here statistics are sums of arrays.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mxnet as mx
from mxnet import autograd, nd
from mxnet.gluon import HybridBlock
from mxnet.ndarray import NDArray

#: A block for the inputs of every device: what it returns for each.
OnDevices = Callable[[Sequence[Sequence[NDArray]]], Sequence[list[NDArray]]]


def on_devices(block: HybridBlock, inputs: int = 1, sync_bn: bool = False) -> OnDevices:
    """A block with `inputs` inputs and a list of outputs, for the shares of a batch on several devices.

    sync_bn: its BatchNorm takes the statistics of all shares together, weighted by their size, in training mode; it
    moves its running statistics while autograd records, alike on every device. The parameters are the block's own. One
    device, or a block without BatchNorm, needs none of it.
    """
    together = _Together(block, inputs) if sync_bn else None

    def run(shares: Sequence[Sequence[NDArray]]) -> Sequence[list[NDArray]]:
        if together is not None and len(shares) > 1 and together.has_batch_norm and autograd.is_training():
            return together(shares)
        return [block(*share) for share in shares]

    return run


class _Together:
    """The graph of a block, operator by operator on all devices: a compiled graph knows one device only."""

    def __init__(self, block: HybridBlock, inputs: int) -> None:
        names = [f"input{index}" for index in range(inputs)]
        outputs = block(*map(mx.sym.var, names))
        graph = json.loads(mx.sym.Group(outputs).tojson())
        self.nodes = graph["nodes"]
        self.heads = [(node, output) for node, output, *_ in graph["heads"]]
        self.order = {name: index for index, name in enumerate(names)}
        self.parameters = block.collect_params()
        self.operators = [_operator(node) for node in self.nodes]
        self.has_batch_norm = any(node["op"] == "BatchNorm" for node in self.nodes)

    def __call__(self, shares: Sequence[Sequence[NDArray]]) -> list[list[NDArray]]:
        devices = [share[0].context for share in shares]
        found: dict[tuple[int, int], list[NDArray]] = {}
        for index, (node, operator) in enumerate(zip(self.nodes, self.operators)):
            arrays = [found[source, output] for source, output, *_ in node["inputs"]]
            if operator is not None and node["op"] == "BatchNorm":
                found[index, 0] = operator(*arrays)
            elif operator is not None:
                results = [_listed(operator(*each)) for each in zip(*arrays)]
                found.update({(index, output): list(each) for output, each in enumerate(zip(*results))})
            elif node["name"] in self.order:
                found[index, 0] = [share[self.order[node["name"]]] for share in shares]
            else:
                found[index, 0] = [self.parameters[node["name"]].data(device) for device in devices]
        return [[found[head][number] for head in self.heads] for number in range(len(devices))]


def _operator(node: Mapping[str, Any]) -> Callable[..., Any] | None:
    """What computes a node, its settings filled in; None for an input or a parameter."""
    name = node["op"]
    if name == "null":
        return None
    # Names in underscores are notes for initialisers and the like. MXNet counts the inputs itself.
    settings = {k: v for k, v in node.get("attrs", {}).items() if not k.startswith("__") and k != "num_args"}
    if name == "BatchNorm":
        return functools.partial(batch_norm, **{k: _value(v) for k, v in settings.items()})
    return functools.partial(getattr(nd._internal if name.startswith("_") else nd.op, name), **settings)


def _value(text: str) -> Any:
    return ast.literal_eval(text.capitalize() if text in ("true", "false") else text)


def _listed(result: Any) -> list[NDArray]:
    return result if isinstance(result, list) else [result]


def batch_norm(
    data: Sequence[NDArray],
    gamma: Sequence[NDArray],
    beta: Sequence[NDArray],
    running_mean: Sequence[NDArray],
    running_var: Sequence[NDArray],
    eps: float = 1e-3,
    momentum: float = 0.9,
    fix_gamma: bool = True,
    **_: Any,
) -> list[NDArray]:
    """MXNet's BatchNorm in training mode, with its defaults, over shares (n, C, H, W) of a batch, one a device.

    Lists hold one array a device.
    """
    count = sum(x.size // x.shape[1] for x in data)
    # The mean first: the mean of squares alone would lose the small variance of a large mean.
    mean = [total / count for total in summed([nd.sum(x, axis=1, exclude=True) for x in data])]
    centred = [nd.broadcast_sub(x, _channels(m)) for x, m in zip(data, mean)]
    squares = summed([nd.sum(nd.square(x), axis=1, exclude=True) for x in centred])
    variance = [total / count for total in squares]
    if fix_gamma:
        with autograd.pause():
            for weight in gamma:
                weight[:] = 1
        # As MXNet's, it has a gradient, of zero: the Trainer asks for one.
        gamma = [1 + 0 * weight for weight in gamma]
    if autograd.is_recording():
        with autograd.pause():
            for kept, moved in ((running_mean, mean), (running_var, variance)):
                for old, new in zip(kept, moved):
                    old[:] = momentum * old + (1 - momentum) * new
    found = []
    for x, var, scale, shift in zip(centred, variance, gamma, beta):
        normed = nd.broadcast_mul(x, _channels(scale / nd.sqrt(var + eps)))
        found.append(nd.broadcast_add(normed, _channels(shift)))
    return found


def _channels(vector: NDArray) -> NDArray:
    return vector.reshape((1, -1, 1, 1))


def summed(parts: Sequence[NDArray]) -> list[NDArray]:
    """The sum of one array from each device, on each of them."""
    total = nd.add_n(*[part.as_in_context(parts[0].context) for part in parts])
    return [total.as_in_context(part.context) for part in parts]
