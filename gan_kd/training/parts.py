"""What a stage under way is made of, as arrays by name: for checkpoints, and to compare workers."""

from __future__ import annotations

from collections.abc import Mapping

import mxnet as mx
import numpy as np

from gan_kd.distill.base import Distiller
from gan_kd.errors import Diverged
from gan_kd.gluon.arrays import prefixed, set_values, stripped, values
from gan_kd.gluon.optim import Optimisation
from gan_kd.training.networks import Networks


def arrays(networks: Networks, optimisation: Optimisation, distillers: list[Distiller]) -> dict[str, mx.nd.NDArray]:
    """Everything in arrays that a stage under way is made of."""
    found = prefixed("optimiser", optimisation.state())
    for name, parameters in trained(networks).items():
        found.update(prefixed(name, values(parameters)))
    for distiller in distillers:
        found.update(prefixed(distiller.name, distiller.state()))
        found.update(prefixed(f"parameters/{distiller.name}", values(distiller.parameters())))
    return found


def load_distillers(distillers: list[Distiller], found: dict[str, mx.nd.NDArray]) -> None:
    """Put the distillers' part of `arrays` back."""
    for distiller in distillers:
        set_values(distiller.parameters(), stripped(f"parameters/{distiller.name}", found))
        distiller.load_state(stripped(distiller.name, found))


def everything(networks: Networks, optimisation: Optimisation, distillers: list[Distiller]) -> dict[str, mx.nd.NDArray]:
    """What `arrays` gives and the teacher, which is in no checkpoint."""
    found = arrays(networks, optimisation, distillers)
    if networks.teacher is not None:
        found.update(prefixed("teacher", values(networks.teacher._collect_params_with_prefix())))
    return found


def trained(networks: Networks) -> dict[str, dict[str, mx.gluon.Parameter]]:
    """The parameters of what a stage trains, by the name of the part."""
    parts = {"detector": networks.detector.weights()}
    if networks.bridge is not None:
        parts["bridge"] = networks.bridge._collect_params_with_prefix()
    return parts


def require_finite(arrays: Mapping[str, mx.nd.NDArray], after: str) -> None:
    """Diverged where one is not: a loss can stay finite over weights that are not, as ReLU turns nan into 0."""
    for name, array in arrays.items():
        if not np.isfinite(array.asnumpy()).all():
            raise Diverged(
                f"{name} holds nan or infinite values after {after}: training stops and the last checkpoint stays "
                "good; start a new run with a lower learning rate"
            )
