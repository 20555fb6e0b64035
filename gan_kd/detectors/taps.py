"""Where an SSD taps a backbone that nobody has chosen taps for: the ends of the stages of stride 16 and 32."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import mxnet as mx
from gluoncv.model_zoo import get_model
from mxnet.gluon import HybridBlock

from gan_kd.errors import UsageError
from gan_kd.recipe.convert import nearest

_SIZE = 512  # px, of the input at which strides are told apart
_STRIDES = (16, 32)
# What ends a block: an activation, also as a product (hard swish) or a minimum (ReLU6), or where branches meet.
_ENDS = {"Activation", "LeakyReLU", "clip", "elemwise_mul", "elemwise_add", "broadcast_add", "Concat"}


class _Output(NamedTuple):
    name: str  # as a tap: without the network's prefix and "_output"
    op: str
    side: int


@functools.cache
def found(backbone: str) -> tuple[str, ...]:
    """Names of the last outputs of stride 16 and of stride 32 through which all that follows passes.

    Of these, where there are any, activations and sums count alone. For MobileNets and ResNet v1 they are the taps of
    GluonCV's SSDs. UsageError for a backbone that has no map of one of the strides.
    """
    passed = list(_bottlenecks(_network(backbone)))
    taps = []
    for stride in _STRIDES:
        there = [output for output in passed if round(math.log2(_SIZE / output.side)) == math.log2(stride)]
        ends = [output for output in there if output.op in _ENDS]
        if not there:
            raise UsageError(f"{backbone} has no map of stride {stride} that an SSD could tap; name taps of your own")
        taps.append((ends or there)[-1].name)
    return tuple(taps)


def shapes(backbone: str, taps: Sequence[str], size: int) -> list[tuple[int, int]]:
    """(channels, side) of the tapped maps for a square input. UsageError for a name that is no map of the backbone."""
    network = _network(backbone)
    maps = _maps(network, _SIZE)
    unknown = next((tap for tap in taps if tap not in maps), None)
    if unknown is not None:
        raise UsageError(f"{backbone} has no map {unknown} to tap{nearest(unknown, maps)}")
    inside = _graph(network).get_internals()
    tapped = mx.sym.Group([inside[f"{network.prefix}{tap}_output"] for tap in taps])
    return [(channels, side) for _, channels, side, _ in tapped.infer_shape(data=(1, 3, size, size))[1]]


def _network(backbone: str) -> HybridBlock:
    """In a scope of its own, where it counts its blocks from 0, as it does inside of an SSD."""
    with HybridBlock().name_scope():
        return get_model(backbone, pretrained=False)


def _graph(network: HybridBlock) -> mx.sym.Symbol:
    outputs = network(mx.sym.var("data"))
    return outputs if isinstance(outputs, mx.sym.Symbol) else mx.sym.Group(list(outputs))


def _maps(network: HybridBlock, size: int) -> dict[str, tuple[int, int]]:
    """(channels, side) of every square map that the network computes, by its name as a tap."""
    inside = _graph(network).get_internals()
    # Partial: a classifier may not fit maps of this size.
    shapes = inside.infer_shape_partial(data=(1, 3, size, size))[1]
    prefix, maps = network.prefix, {}
    for name, shape in zip(inside.list_outputs(), shapes):
        if name.startswith(prefix) and name.endswith("_output") and len(shape) == 4 and shape[2] == shape[3] > 0:
            maps[name[len(prefix) : -len("_output")]] = shape[1], shape[2]
    return maps


def _bottlenecks(network: HybridBlock) -> Iterator[_Output]:
    """The maps that nothing goes around, in order: after each of them it alone of all outputs so far is used again."""
    maps = _maps(network, _SIZE)
    described: dict[str, Any] = json.loads(_graph(network).tojson())
    nodes: list[Mapping[str, Any]] = described["nodes"]
    data = {i for i, node in enumerate(nodes) if node["op"] != "null" or node["name"] == "data"}
    last = {at: index for index, node in enumerate(nodes) for at, *_ in node["inputs"] if at in data}
    reach = 0  # the last node that uses an output of those before this one
    for index in sorted(data):
        name = nodes[index]["name"][len(network.prefix) :]
        if reach <= index and name in maps and nodes[index]["op"] != "null":
            yield _Output(name, nodes[index]["op"], maps[name][1])
        reach = max(reach, last.get(index, len(nodes)))
