"""What a distiller is: the seam through which a method enters a training stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import mxnet as mx
from mxnet import autograd, nd
from mxnet.ndarray import NDArray

from gan_kd.gluon.optim import Position

Maps = list[NDArray]


class Compared(NamedTuple):
    """What a distiller knows of the maps before it sees any."""

    #: Of each pair of maps, C_k and S_k; a student's map has the teacher's channels, by its adapter.
    channels: list[int]
    sizes: list[int]
    #: The devices, on which a distiller's own parameters have to be.
    contexts: tuple[mx.Context, ...]


class Outputs(NamedTuple):
    """Predictions of an SSD head on one device: logits (n, A, classes + 1), class 0 the background, and box offsets
    (n, A, 4)."""

    classes: NDArray
    boxes: NDArray


class Seen(NamedTuple):
    """What a distiller sees of a batch on one device, which holds n of its samples.

    Maps come in pairs: entry k of `teacher` and entry k of `student` have the same shape (n, C_k, S_k, S_k).
    """

    teacher: Maps
    student: Maps
    #: The teacher's and the student's, at equal anchors; None unless the distiller `needs` them, and in `update`.
    outputs: tuple[Outputs, Outputs] | None = None


class Distiller:
    """A distillation method as the engine sees it; the defaults are those of a method without parameters of its own."""

    #: Of its arrays in a checkpoint; no two distillers of a stage share it.
    name = ""
    #: What `Seen` has to hold beside maps: "outputs" or nothing.
    needs: tuple[str, ...] = ()
    #: Whether the losses reach the student's maps in `Seen`.
    compares_maps = True
    #: Epochs before the stage's own in which only `update` runs and the student stands still.
    warmup_epochs = 0

    def losses(self, seen: Seen, batch_size: int) -> dict[str, NDArray]:
        """Weighted losses of one device, for the student to minimise.

        Called inside `autograd.record()`. Each value is a scalar of shape (1,): the sum over this device's samples
        divided by `batch_size`, the samples on all devices, so that devices add up to the batch mean. No other part of
        a step may return a loss of the same name.
        """
        raise RuntimeError(f"{type(self).__name__} gives no loss")

    def shares(self, seen: Sequence[Seen], batch_size: int) -> dict[str, list[NDArray]]:
        """`losses` of every device, by name; for a method whose devices need each other to replace."""
        named: dict[str, list[NDArray]] = {}
        for part in seen:
            for name, loss in self.losses(part, batch_size).items():
                named.setdefault(name, []).append(loss)
        return named

    def update(self, seen: Sequence[Seen], batch_size: int, position: Position) -> dict[str, list[NDArray]]:
        """Train the method's own parameters on the maps of every device; the student's are not to be reached.

        position: in the warm-up its `step` stays 0 and `warmed` counts, so that a schedule begins with the stage.
        Returns what is worth logging, by name: one (1,) array a device, which add up to the batch mean.
        """
        return {}

    def diagnose(self, seen: Sequence[Seen], batch_size: int) -> dict[str, list[float]]:
        """How the method stands on the maps of every device: lists of one number a map, by name.

        Here `gradient_NAME` for each of its losses: the norm of the weighted loss's gradient at the student's map of
        the whole batch. Called outside `autograd.record()`; waits for the devices and changes nothing. Not called for
        a method that needs outputs: those gradients are taken through the head, by the engine.
        """
        maps = [leaves(part.student) for part in seen]
        with autograd.record():
            losses = self.shares([part._replace(student=fake) for part, fake in zip(seen, maps)], batch_size)
        return {f"gradient_{name}": norms(slopes(parts, maps, True)) for name, parts in losses.items()}

    def warnings(self, found: Mapping[str, Sequence[float]]) -> list[str]:
        """What a user should know of a diagnosis `found`, a sentence each."""
        return []

    def state(self) -> dict[str, NDArray]:
        """Everything that `load_state` needs to go on with the same numbers, as arrays by name."""
        return {}

    def load_state(self, state: dict[str, NDArray]) -> None:
        """Put back what `state` gave."""


def leaves(maps: Maps) -> Maps:
    """The same maps as the inputs of a graph, to take gradients at."""
    found = [m.detach() for m in maps]
    for m in found:
        m.attach_grad()
    return found


def slopes(losses: Sequence[NDArray], maps: Sequence[Maps], retain_graph: bool = False) -> list[Maps]:
    """Gradients of the sum of losses, one a device, at the maps of every device, which `leaves` gave."""
    each = len(maps[0])
    found = autograd.grad(list(losses), [m for part in maps for m in part], retain_graph=retain_graph)
    return [found[start : start + each] for start in range(0, len(found), each)]


def norms(slopes: Sequence[Maps]) -> list[float]:
    """Norm of every map's gradient over the whole batch, of which each device has some samples. Waits for them."""
    return [math.hypot(*(float(nd.norm(part).asscalar()) for part in parts)) for parts in zip(*slopes)]
