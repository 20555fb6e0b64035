"""Parameters and multiply-accumulates of a network, counted on its graph."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod

import mxnet as mx
from mxnet.gluon import Constant, HybridBlock


def count(block: HybridBlock, shape: Sequence[int]) -> tuple[int, int]:
    """(parameters, multiply-accumulates) of a block for an input of the given shape, (1,3,S,S) for one image.

    Parameters are what training can change: neither BatchNorm statistics nor anchors. Multiply-accumulates
    are those of convolutions and dense layers, as papers count them: no bias, norm, activation or
    suppression of boxes.
    """
    outputs = block(mx.sym.var("data"))
    graph = outputs if isinstance(outputs, mx.sym.Symbol) else mx.sym.Group(list(outputs))
    inside = graph.get_internals()
    shape_of = dict(zip(inside.list_outputs(), inside.infer_shape(data=tuple(shape))[1]))
    nodes = json.loads(graph.tojson())["nodes"]
    macs = 0
    for node in nodes:
        if node["op"] in ("Convolution", "FullyConnected"):
            weight = nodes[node["inputs"][1][0]]["name"]
            # A number of the output is the sum over one filter: over all axes of the weight but the first.
            macs += prod(shape_of[f"{node['name']}_output"]) * prod(shape_of[weight][1:])
    constants = {name for name, value in block.collect_params().items() if isinstance(value, Constant)}
    learnt = set(graph.list_arguments()) - {"data"} - constants
    return sum(prod(shape_of[name]) for name in learnt), macs
