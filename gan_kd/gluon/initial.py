"""First weights of a detector."""

from __future__ import annotations

from collections.abc import Iterable

import mxnet as mx
from mxnet.gluon import Parameter


def initialise(parameters: Iterable[Parameter]) -> None:
    """Initialises on the CPU by a parameter's own rule if it has one, else by its name: He, and BatchNorm as identity.

    Follows mx.random.seed. Block.initialize would draw the BatchNorm of GluonCV's extra layers at random, negative
    variances included.
    """
    rules = {"weight": mx.init.Xavier("gaussian", "in", 2), "gamma": mx.init.One(), "var": mx.init.One()}
    for parameter in parameters:
        kind = parameter.name.rsplit("_", 1)[-1]
        parameter.initialize(init=parameter.init or rules.get(kind, mx.init.Zero()), ctx=mx.cpu())
