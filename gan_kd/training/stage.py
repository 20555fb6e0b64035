"""A stage: its networks, its distillers, the optimiser of what is trained, and the step that moves it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mxnet as mx
from mxnet.ndarray import NDArray

from gan_kd.data.batch import Regions
from gan_kd.gluon.arrays import prefixed, set_values, stripped, values
from gan_kd.gluon.optim import Optimisation
from gan_kd.recipe import Recipe
from gan_kd.system.memory import GB
from gan_kd.training.distillers import build_distillers
from gan_kd.training.networks import Networks
from gan_kd.training.step import Step


class Stage:
    """A stage under way. Distillers and optimiser are new; the networks may have been trained by the stage before."""

    def __init__(self, recipe: Recipe, name: str, networks: Networks, contexts: Sequence[mx.Context]) -> None:
        """name: of the recipe's stage. networks: on the contexts."""
        self.name, self.config, self.networks = name, recipe.stages[name], networks
        self.distillers = build_distillers(recipe, self.config, networks, contexts)
        parameters = networks.parameters(self.distillers)
        self.optimisation = Optimisation(parameters, self.config.optimizer, self.config.schedule, contexts)
        self.step = Step(
            networks, self.distillers, self.optimisation, contexts, recipe.train.sync_bn, recipe.teacher.remember * GB
        )

    @property
    def warmup(self) -> int:
        """Epochs before its own in which distillers alone learn."""
        return max((distiller.warmup_epochs for distiller in self.distillers), default=0)

    @property
    def regions(self) -> list[Regions]:
        """What its distillers want marked in every image."""
        return [distiller.regions for distiller in self.distillers if distiller.regions is not None]

    def arrays(self) -> dict[str, NDArray]:
        """Everything in arrays that it is made of, by name: what a checkpoint holds."""
        found = prefixed("optimiser", self.optimisation.state())
        for name, parameters in self.networks.trained().items():
            found.update(prefixed(name, values(parameters)))
        for distiller in self.distillers:
            found.update(prefixed(distiller.name, distiller.state()))
            found.update(prefixed(f"parameters/{distiller.name}", values(distiller.parameters())))
        return found

    def everything(self) -> dict[str, NDArray]:
        """What `arrays` gives and the teacher, which is in no checkpoint: to compare workers."""
        found = self.arrays()
        if self.networks.teacher is not None:
            found.update(prefixed("teacher", values(self.networks.teacher._collect_params_with_prefix())))
        return found

    def load(self, arrays: Mapping[str, NDArray]) -> None:
        """Put back of `arrays` what is not the networks'."""
        self.optimisation.load_state(stripped("optimiser", arrays))
        for distiller in self.distillers:
            set_values(distiller.parameters(), stripped(f"parameters/{distiller.name}", arrays))
            distiller.load_state(stripped(distiller.name, arrays))
