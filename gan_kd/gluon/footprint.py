"""Bytes that a network's maps take in forward and backward, counted on its graph: nothing is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

import mxnet as mx
from mxnet.gluon import HybridBlock

FLOAT = 4  # bytes of a float32
_Entry = tuple[int, int]  # node of the graph, number of its output
# What the backward pass of an operator reads again: its inputs, its outputs. Others: both.
_READS = {
    **dict.fromkeys(("Convolution", "FullyConnected", "BatchNorm", "InstanceNorm", "LeakyReLU", "clip"), (True, False)),
    **dict.fromkeys(("elemwise_mul", "broadcast_mul"), (True, False)),
    **dict.fromkeys(("Activation", "softmax", "log_softmax"), (False, True)),
    **dict.fromkeys(("elemwise_add", "broadcast_add", "add_n", "Concat", "SliceChannel", "slice_axis"), (False, False)),
    **dict.fromkeys(("Reshape", "Flatten", "transpose", "expand_dims", "_copy"), (False, False)),
    **dict.fromkeys(("_plus_scalar", "_mul_scalar", "_div_scalar"), (False, False)),
}
# Operators without a kernel for the layout of convolutions on the CPU: they work on copies (measured, clip).
_COPIED = ("clip", "L2Normalization", "InstanceNorm")


class Activations(NamedTuple):
    """Bytes of a graph for one batch; they grow in proportion to it.

    forward: the most that is alive at a time in a pass without gradients; about as much are the gradients that are
    alive at a time in a backward pass. kept: what the backward pass reads again.
    """

    forward: int
    kept: int


def count(block: HybridBlock, shapes: Sequence[Sequence[int]]) -> Activations:
    """Of a block on inputs of these shapes; its parameters need not be initialised."""
    inputs = {f"input{i}": tuple(shape) for i, shape in enumerate(shapes)}
    outputs = block(*map(mx.sym.var, inputs))
    graph = outputs if isinstance(outputs, mx.sym.Symbol) else mx.sym.Group(list(outputs))
    described = json.loads(graph.tojson())
    nodes = described["nodes"]
    sizes = _sizes(graph, nodes, inputs)
    last: dict[_Entry, int] = {}  # the node that uses an output last
    kept: set[_Entry] = set()
    for index, node in enumerate(nodes):
        used = [(at, number) for at, number, *_ in node["inputs"]]
        last.update(dict.fromkeys(used, index))
        if node["op"] == "null":
            continue
        if node["op"] in _COPIED:
            sizes.update({entry: 2 * sizes[entry] for entry in (*used, (index, 0)) if entry in sizes})
        reads_inputs, reads_outputs = _READS.get(node["op"], (True, True))
        kept.update(used if reads_inputs else [])
        kept.update([(index, 0)] if reads_outputs else [])
    last.update({(at, number): len(nodes) for at, number, *_ in described["heads"]})
    return Activations(_peak(len(nodes), sizes, last), sum(sizes.get(entry, 0) for entry in kept))


def _sizes(
    graph: mx.sym.Symbol, nodes: Sequence[Mapping[str, Any]], inputs: Mapping[str, tuple[int, ...]]
) -> dict[_Entry, int]:
    """Bytes of what operators give. Inputs and parameters are left out."""
    inside = graph.get_internals()
    # In the order of the nodes, and each node's outputs together.
    pairs = iter(zip(inside.list_outputs(), inside.infer_shape(**inputs)[1]))
    following = next(pairs, None)
    sizes: dict[_Entry, int] = {}
    for index, node in enumerate(nodes):
        number = 0
        # The first is the node's by its place, others by their names.
        while following and (number == 0 or following[0] == f"{node['name']}_output{number}"):
            if node["op"] != "null":
                sizes[index, number] = FLOAT * prod(following[1])
            following, number = next(pairs, None), number + 1
    return sizes


def _peak(nodes: int, sizes: Mapping[_Entry, int], last: Mapping[_Entry, int]) -> int:
    """The most bytes alive at a time, each output from its node to the last one that uses it."""
    change = [0] * (nodes + 2)
    for (index, number), size in sizes.items():
        change[index] += size
        change[last.get((index, number), index) + 1] -= size
    return max(accumulate(change))
