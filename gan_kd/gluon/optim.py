"""Optimiser steps under a learning-rate schedule, with a state made of arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import mxnet as mx
from mxnet import autograd, gluon, nd
from mxnet.contrib.amp import amp
from mxnet.ndarray import NDArray

from gan_kd.distributed.cluster import here
from gan_kd.gluon.contexts import amp_started
from gan_kd.recipe import Optimizer, Schedule

#: Name of the loss scale's counters in a state.
_SCALER = "loss_scale"
#: Last part of the name of a parameter's number of updates in a state.
_COUNT = "count"


class Position(NamedTuple):
    """Where a step stands in its stage."""

    #: Steps done before this one.
    step: int
    #: Steps of the whole stage.
    steps: int
    #: Epochs of the whole stage.
    epochs: int
    #: Steps of the distillers' warm-up done before this one. During it `step` is 0: the schedule begins with the stage.
    warmed: int = 0


def lr_factor(schedule: Schedule, position: Position) -> float:
    """What the optimiser's learning rate is multiplied with at a position.

    `step`: `factor` once for every entry of `at` that has passed; an entry below 1 is a fraction of the stage, from 1
    on a number of epochs. `cosine`: half a cosine, from 1 to 0. The first `warmup_batches` rise linearly, those of a
    distillers' warm-up included, which else has the stage's first rate.
    """
    progress = position.step / max(1, position.steps)
    if schedule.name == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        points = [at if at < 1 else at / position.epochs for at in schedule.at]
        # The tolerance keeps "0.8 of 5 epochs" at the start of epoch 5 for every rounding of the quotients.
        factor = schedule.factor ** sum(progress >= point - 1e-9 for point in points)
    return factor * min(1.0, (position.warmed + position.step + 1) / (schedule.warmup_batches + 1))


class Optimisation:
    """A Gluon Trainer, its schedule, and a state that `mx.nd.save` can hold.

    Losses are expected as shares of the batch mean that add up over devices and workers, hence `step(1)`. In mixed
    precision each has a scale of its own for its losses, by MXNet's rule: halved, and the step left out, where a
    gradient is not finite, doubled after 2,000 steps.
    """

    def __init__(
        self,
        parameters: Mapping[str, gluon.Parameter],
        optimizer: Optimizer,
        schedule: Schedule,
        contexts: Sequence[mx.Context],
    ) -> None:
        """parameters: by their names in files, which name their moments in a state."""
        # The order of a Trainer that is given a ParameterDict: states older than the names number parameters by it.
        self.names = sorted(parameters, key=lambda name: parameters[name].name)
        ordered = [parameters[name] for name in self.names]
        self.schedule = schedule
        self.base_lr = optimizer.lr
        options = {"learning_rate": optimizer.lr, "wd": optimizer.wd}
        if optimizer.name == "sgd":
            options["momentum"] = optimizer.momentum
        else:
            options.update(beta1=optimizer.beta1, beta2=optimizer.beta2)
        if optimizer.clip_gradient is not None:
            options["clip_gradient"] = optimizer.clip_gradient
        # Gluon's names, since no two Trainers share any: two critics have the same names in files.
        store = here().trainer_store([parameter.name for parameter in ordered])
        # update_on_kvstore=False: the kvstore's copy would overwrite clamped weights and ignore the schedule.
        self.trainer = gluon.Trainer(
            ordered,
            optimizer.name,
            options,
            kvstore=store or ("device" if len(contexts) > 1 else None),
            update_on_kvstore=False,
        )
        # Its first step gives every device the first one's values. BatchNorm's statistics are each device's own, and
        # after a resume they differ.
        self.trainer._params_to_init = [p for p in self.trainer._params_to_init if p.grad_req != "null"]
        if amp_started():
            amp.init_trainer(self.trainer)

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return self.trainer.learning_rate

    def backward(self, losses: Sequence[NDArray]) -> None:
        """Gradients of the sum of losses, one a device, for the next `step`."""
        if not amp_started():
            autograd.backward(losses)
            return
        with autograd.record(), amp.scale_loss(list(losses), self.trainer) as scaled:
            autograd.backward(scaled)

    def step(self, position: Position) -> None:
        """Update the parameters from their gradients."""
        self.trainer.set_learning_rate(self.base_lr * lr_factor(self.schedule, position))
        self.trainer.step(1)

    def state(self) -> dict[str, NDArray]:
        """Of each parameter that was updated its moments, NAME.0 and so on, and the number of updates, NAME.count.

        Every device holds the same, so one is kept. Arrays, because `Trainer.save_states` pickles, and unpickling a
        stranger's file runs code.
        """
        arrays = {}
        for index, moments in self.trainer._updaters[0].states.items():
            for part, array in enumerate(_as_tuple(moments)):
                arrays[f"{self.names[index]}.{part}"] = array
        for index, updates in self.trainer._optimizer._index_update_count.items():
            arrays[f"{self.names[index]}.{_COUNT}"] = nd.array([updates], dtype="int64")
        if amp_started():
            scaler = self.trainer._amp_loss_scaler
            counters = [scaler._loss_scale, scaler._next_loss_scale, scaler._unskipped]
            arrays[_SCALER] = nd.array(counters, dtype="float64")
        return arrays

    def load_state(self, state: Mapping[str, NDArray]) -> None:
        """Put back what `state` gave, on every device, or one with the Trainer's numbers for names, as it once was.

        ValueError where it is of other parameters, or of other shapes.
        """
        moments, counts = self._by_index({name: array for name, array in state.items() if name != _SCALER})
        optimizer = self.trainer._optimizer
        for updater, context in zip(self.trainer._updaters, self.trainer._contexts):
            for index, parts in moments.items():
                copies = tuple(part.copyto(context) for part in parts)
                updater.states[index] = copies if len(copies) > 1 else copies[0]
                updater.states_synced[index] = True
            # MXNet counts updates by device number; the counts are the same on all of them.
            optimizer._all_index_update_counts[context.device_id] = dict(counts)
        optimizer._set_current_context(self.trainer._contexts[-1].device_id)
        optimizer.num_update = max(counts.values(), default=optimizer.begin_num_update)
        if amp_started() and _SCALER in state:
            scaler = self.trainer._amp_loss_scaler
            scaler._loss_scale, scaler._next_loss_scale, unskipped = state[_SCALER].asnumpy().tolist()
            scaler._unskipped = int(unskipped)

    def _by_index(self, state: Mapping[str, NDArray]) -> tuple[dict[int, list[NDArray]], dict[int, int]]:
        """Moments and update counts by the Trainer's numbers, from a state of either form."""
        numbered = all(name.rpartition(".")[0].isdecimal() for name in state)
        index_of = {str(index) if numbered else name: index for index, name in enumerate(self.names)}
        moments: dict[int, list[NDArray]] = {}
        counts: dict[int, int] = {}
        for key in sorted(state):
            name, _, part = key.rpartition(".")
            if name not in index_of:
                raise ValueError(f"the optimiser's state has {name}, which is not trained here")
            index = index_of[name]
            if part == _COUNT:
                counts[index] = int(state[key].asscalar())
                continue
            shape = self.trainer._params[index].shape
            if state[key].shape != shape:
                raise ValueError(f"the optimiser's state of {self.names[index]} is {state[key].shape}, not {shape}")
            moments.setdefault(index, []).append(state[key])
        # A step updates all that have gradients, so a state has all of them, or none before the first step.
        trained = [index for index, parameter in enumerate(self.trainer._params) if parameter.grad_req != "null"]
        odd = sorted(set(trained) ^ counts.keys()) if counts else sorted(moments)
        if odd:
            raise ValueError(f"the optimiser's state is not of what is trained here: {self.names[odd[0]]}")
        return moments, counts


def _as_tuple(moments: object) -> tuple[NDArray, ...]:
    """Adam keeps a pair of moments, SGD with momentum one array, plain SGD None."""
    if moments is None:
        return ()
    return moments if isinstance(moments, tuple) else (moments,)
