"""What a distiller is: the seam through which a method enters a training stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
from mxnet import autograd, nd
from mxnet.ndarray import NDArray

from gan_kd.data.batch import Regions
from gan_kd.detectors.anchors import Anchors
from gan_kd.detectors.base import Level
from gan_kd.gluon.optim import Position

Maps = list[NDArray]


class Compared(NamedTuple):
    """What a distiller is built with: what is known of the pairs of maps that it compares before it sees any."""

    #: Of each pair the teacher's level; the student's map has its channels, by an adapter.
    levels: list[Level]
    #: The devices, on which a distiller's own parameters have to be.
    contexts: tuple[mx.Context, ...]
    classes: tuple[str, ...] = ()
    #: Channels of the student's maps before the adapters that serve distillers alone, for one that brings its own.
    student_channels: tuple[int, ...] = ()
    #: Of the student's head at each pair's map; None where they are not among `needs`.
    anchors: Anchors | None = None
    #: Of whatever a distiller draws; MXNet's and NumPy's generators start from it too.
    seed: int = 0
    #: Statistics of a batch are to be those of all devices together.
    sync_bn: bool = False

    @property
    def channels(self) -> list[int]:
        """Of each pair of maps."""
        return [level.channels for level in self.levels]

    @property
    def sizes(self) -> list[int]:
        """Sides of each pair of maps; for detectors whose images have one size."""
        return [level.side for level in self.levels if level.side is not None]


class Seen(NamedTuple):
    """What a distiller sees of a batch on one device, which holds n of its samples.

    Maps come in pairs, those of the distiller's places: entry k of `teacher` and entry k of `student` have the same
    shape (n, C_k, H_k, W_k). What is None was not asked for by `needs`.
    """

    teacher: Maps
    student: Maps
    #: The teacher's and the student's predictions, as of `Head.outputs`, at equal anchors; None in `update` too.
    outputs: tuple[Any, Any] | None = None
    #: What the student's detection loss assigned to what, as of `Detected.assigned`; None in `update` too.
    assigned: Mapping[str, Any] | None = None
    #: (n, M, 5) float32 x0, y0, x1, y1, class of the objects in input px, rows in no use -1. In NumPy, as all that
    #: follows: views of the batch, valid until the next one.
    truth: np.ndarray | None = None
    #: (n, 2) float32 height and width of each image in the input, px; None where all fill it.
    extents: np.ndarray | None = None
    #: What the distiller's `regions` wrote, (n, ...) each.
    regions: tuple[np.ndarray, ...] = ()


class Distiller:
    """A distillation method as the engine sees it; the defaults are those of a method without parameters of its own.

    It is built by `Class(compared, **arguments)`; `Compared` holds the pairs of maps of its places alone. A stage whose
    detector family has no such place, or cannot give what it needs, is refused (recipe/families.py).
    """

    #: Of its arrays in a checkpoint; no two distillers of a stage share it.
    name = ""
    #: Where the maps that it compares stand, as `Level.place`; none for a method that compares no maps.
    places: tuple[str, ...] = ("neck",)
    #: What it has to be given beside maps and truth, of what a family may be able to give (`Facts.gives`): "outputs",
    #: "assigned" in `Seen`, "anchors" in `Compared`, "priors" of a family whose `assigned` has those of GFL.
    needs: tuple[str, ...] = ()
    #: Marks in every image where its objects are, in the loader's workers.
    regions: Regions | None = None
    #: Whether it adapts the student's maps itself, by `parameters`: then `Seen` has them as they are without the
    #: adapters that serve distillers alone, and shapes may differ in channels.
    adapts = False
    #: Epochs before the stage's own in which only `update` runs and the student stands still.
    warmup_epochs = 0

    def parameters(self) -> dict[str, mx.gluon.Parameter]:
        """What the student's optimiser moves beside the student, by name: an adaptation layer, for example.

        On all devices of `Compared`. It is trained by the losses, saved in checkpoints and not deployed; every
        parameter has to be reached by them in every step.
        """
        return {}

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
        the whole batch. Called outside `autograd.record()`; waits for the devices and changes nothing. Here nothing
        for a method of predictions alone, whose gradients the engine takes through the head; the numbers that such a
        method gives are of the maps that the head takes.
        """
        if not self.places:
            return {}
        maps = [leaves(part.student) for part in seen]
        with autograd.record():
            losses = self.shares([part._replace(student=fake) for part, fake in zip(seen, maps)], batch_size)
        return {f"gradient_{name}": norms(slopes(parts, maps, True)) for name, parts in losses.items()}

    def warnings(self, found: Mapping[str, Sequence[float]]) -> list[str]:
        """What a user should know of a diagnosis `found`, a sentence each."""
        return []

    def state(self) -> dict[str, NDArray]:
        """Everything beside `parameters` that `load_state` needs to go on with the same numbers, as arrays by name."""
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
