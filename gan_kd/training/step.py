"""One batch: teacher and student maps once each, the distillers' own step, then the student's step."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
from mxnet import autograd, nd
from mxnet.ndarray import NDArray

from gan_kd.data.batch import TrainBatch
from gan_kd.detectors.base import Detected
from gan_kd.distill.base import Distiller, Maps, Seen, leaves, norms
from gan_kd.distill.cosine_attention import similarity
from gan_kd.distributed.cluster import here
from gan_kd.errors import UsageError
from gan_kd.gluon.contexts import full, split
from gan_kd.gluon.optim import Optimisation, Position
from gan_kd.gluon.sync_bn import on_devices
from gan_kd.training.networks import Networks
from gan_kd.training.remembered import Remembered

#: Of a diagnosis, what every worker finds the same.
SHARED = ("maps", "critic_at_bound")


class _Taught(NamedTuple):
    """The teacher on one device."""

    #: The compared ones.
    maps: Maps
    #: Of its head, where a distiller needs them.
    outputs: Any = None


class _Student(NamedTuple):
    """The student on one device."""

    #: Maps that its head takes.
    through_head: Maps
    #: The compared ones of them, and the same behind the bridge.
    compared: Maps
    bridged: Maps


class Step:
    """A stage's update of its networks from one batch, on every context of every worker.

    Every loss is a share of the whole batch's mean, so that the sum over contexts and workers, which the Trainer takes
    of the gradients, is what one context with the whole batch would give (BatchNorm statistics aside). A worker's
    batch is its part of the whole.
    """

    def __init__(
        self,
        networks: Networks,
        distillers: Sequence[Distiller],
        optimisation: Optimisation,
        contexts: Sequence[mx.Context],
        sync_bn: bool = False,
        remember: float = 0,
    ) -> None:
        """sync_bn: the student's BatchNorm takes its statistics over all contexts together. remember: bytes for
        the teacher's predictions, where no distiller compares maps; 0: they are made anew."""
        self.networks = networks
        self.distillers = distillers
        self.optimisation = optimisation
        self.contexts = contexts
        self._marked = [distiller for distiller in distillers if distiller.regions is not None]
        self._bridged = any(distiller.places and not distiller.adapts for distiller in distillers)
        predicted = any("outputs" in distiller.needs for distiller in distillers)
        alone = predicted and not any(distiller.places for distiller in distillers)
        self._remembered = None
        if remember and alone:
            self._remembered = Remembered(lambda images: self._taught(images).outputs, remember)
        self._extract = on_devices(networks.detector.extractor, sync_bn=sync_bn)

    def __call__(self, batch: TrainBatch, position: Position) -> dict[str, list[NDArray]]:
        """Train on one batch; returns the losses by name, one (1,) array a device that add up to the batch mean.

        Over the devices of all workers, that is.
        """
        images, prepared, size = self._split(batch)
        teacher = self._remember(batch.images, images)
        with autograd.record():
            student = self._student_maps(images)
        logs = self._update_distillers(batch, teacher, student, size, position)
        with autograd.record():
            detected = self.detection([part.through_head for part in student], prepared)
            named = dict(detected.losses)
            for distiller in self.distillers:
                seen = self._seen(distiller, batch, teacher, student, detected)
                _add(named, distiller.shares(seen, size), distiller, logs)
            totals = [nd.add_n(*losses) for losses in zip(*named.values())]
        self.optimisation.backward(totals)
        self.optimisation.step(position._replace(warmed=0))  # the student did not warm up
        return {**named, **logs}

    def warm_up(self, batch: TrainBatch, position: Position) -> dict[str, list[NDArray]]:
        """Let the distillers train their own parameters; the student stands still."""
        images = split(batch.images, self.contexts)
        teacher = [self._taught(x) for x in images]
        # Batch statistics as in training, but nothing is recorded, so the student's BatchNorm keeps its own.
        with autograd.train_mode():
            student = self._student_maps(images)
        return self._update_distillers(batch, teacher, student, _whole(batch), position)

    def diagnose(self, batch: TrainBatch) -> dict[str, list[float]]:
        """How the distillers stand beside the detection loss on a batch: lists of one number a compared map, by name.

        `maps`: the side, cells. `attention_cosine`: similarity of student's and teacher's attention, mean over the
        batch. `gradient_detection`: norm of the gradient of L_conf + L_loc at the map that the head takes, which with
        the student's own head is the one before the adapter; so are the gradients of losses on the head's outputs. And
        what each distiller tells, of the maps that it compares. Waits for the devices; parameters, their gradients and
        BatchNorm's statistics stay.
        """
        images, prepared, size = self._split(batch)
        teacher = [self._taught(x) for x in images]
        with autograd.train_mode():  # as in `warm_up`
            student = self._student_maps(images)
        cosines = [
            [nd.sum(similarity(*pair)) for pair in zip(real.maps, fake.bridged)] for real, fake in zip(teacher, student)
        ]
        through_head = [part.through_head for part in student]
        found = {
            "maps": [m.shape[-1] for m in student[0].bridged],
            "attention_cosine": [sum(float(part.asscalar()) for part in parts) / size for parts in zip(*cosines)],
            "gradient_detection": self._norms_through_head(
                through_head, lambda maps: {"detection": _added(self.detection(maps, prepared).losses)}
            )["detection"],
        }
        detected = self.detection(through_head, prepared) if any(d.needs for d in self.distillers) else None
        for distiller in self.distillers:
            if ("outputs" in distiller.needs or "assigned" in distiller.needs) and not distiller.places:
                found.update(self._diagnose_outputs(distiller, batch, teacher, student, prepared, size))
            own = distiller.diagnose(self._seen(distiller, batch, teacher, student, detected), size)
            for name, values in own.items():
                found[name] = self._at_all_pairs(distiller, values) if distiller.places else self._at_head_maps(values)
        return {name: values if name in SHARED else _over_workers(name, values) for name, values in found.items()}

    def _at_all_pairs(self, distiller: Distiller, values: list[float]) -> list[float]:
        """A number for each of the distiller's maps as one for each compared map, nan at places of others."""
        spread = [math.nan] * len(self.networks.pairs)
        for k, value in zip(self.networks.pairs_at(distiller.places), values):
            spread[k] = value
        return spread

    def _at_head_maps(self, values: Sequence[float]) -> list[float]:
        """A number for each map that the head takes as one for each compared map, nan at others."""
        taken = self.networks.detector.extractor.to_head
        return [values[taken.index(index)] if index in taken else math.nan for index, _ in self.networks.pairs]

    def _diagnose_outputs(
        self,
        distiller: Distiller,
        batch: TrainBatch,
        teacher: Sequence[_Taught],
        student: Sequence[_Student],
        prepared: Sequence[Any],
        size: int,
    ) -> dict[str, list[float]]:
        def losses_of(maps: Sequence[Maps]) -> dict[str, list[NDArray]]:
            detected = self.detection(maps, prepared)
            return distiller.shares(self._seen(distiller, batch, teacher, student, detected), size)

        found = self._norms_through_head([part.through_head for part in student], losses_of)
        return {f"gradient_{name}": values for name, values in found.items()}

    def _norms_through_head(
        self,
        through_head: Sequence[Maps],
        losses_of: Callable[[Sequence[Maps]], dict[str, list[NDArray]]],
    ) -> dict[str, list[float]]:
        """Norms of losses behind the head, by name, at the compared maps; nan at one that it does not take."""
        inputs = [leaves(maps) for maps in through_head]
        with autograd.record():
            losses = losses_of(inputs)
        found = {}
        for name, parts in losses.items():
            slopes = [autograd.grad([loss], maps, retain_graph=True) for loss, maps in zip(parts, inputs)]
            found[name] = self._at_head_maps(norms(slopes))
        return found

    def detection(self, maps: Sequence[Maps], prepared: Sequence[Any]) -> Detected:
        """What the family's loss gives for the maps that the student's head takes."""
        return self.networks.loss.shares(self.networks.detector.head, maps, prepared)

    def _split(self, batch: TrainBatch) -> tuple[list[NDArray], list[Any], int]:
        """Images, and what the loss compares with; one entry a device. And the samples of the whole batch."""
        # All copies first: on the CPU each waits until MXNet's queue is empty.
        return split(batch.images, self.contexts), self.networks.loss.prepare(batch, self.contexts), _whole(batch)

    def _taught(self, images: NDArray) -> _Taught:
        """What the teacher says.

        Outside `record` and in predict mode: the teacher's BatchNorm must not move either.
        """
        if self.networks.teacher is None or not self.distillers:
            return _Taught([])
        maps = self.networks.teacher(images)
        outputs = None
        if any("outputs" in distiller.needs for distiller in self.distillers):
            assert self.networks.teacher_head is not None
            outputs = self.networks.teacher_head.outputs([maps[index] for index in self.networks.teacher.to_head])
        return _Taught([full(maps[index]) for _, index in self.networks.pairs], outputs)

    def _remember(self, batch: np.ndarray, images: Sequence[NDArray]) -> list[_Taught]:
        """`_taught` of every device's images, which are parts of the batch; from memory where the stage has one."""
        if self._remembered is None:
            return [self._taught(x) for x in images]
        return [_Taught([], self._remembered(self._share(batch, device), x.context)) for device, x in enumerate(images)]

    def _student_maps(self, images: Sequence[NDArray]) -> list[_Student]:
        """What the student says on every device. Where no distiller is served by the bridge, it does not learn."""
        return list(map(self._adapted, self._extract([[x] for x in images])))

    def _adapted(self, maps: Maps) -> _Student:
        detector, flat = self.networks.detector, list(maps)
        taken = [maps[index] for index in detector.extractor.to_head]
        through_head = [full(m) for m in (taken if detector.adapters is None else detector.adapters(*taken))]
        for index, adapted in zip(detector.extractor.to_head, through_head):
            flat[index] = adapted
        compared = [full(flat[index]) for index, _ in self.networks.pairs] if self.distillers else []
        if self.networks.bridge is None or not self._bridged:
            return _Student(through_head, compared, compared)
        return _Student(through_head, compared, [full(m) for m in self.networks.bridge(*compared)])

    def _seen(
        self,
        distiller: Distiller,
        batch: TrainBatch,
        teacher: Sequence[_Taught],
        student: Sequence[_Student],
        detected: Detected | None = None,
    ) -> list[Seen]:
        """What a distiller sees of the batch on every device: maps at its places, and what it needs."""
        chosen = self.networks.pairs_at(distiller.places)
        seen = []
        for device, (real, fake) in enumerate(zip(teacher, student)):
            maps = fake.compared if distiller.adapts else fake.bridged
            part = Seen([real.maps[k] for k in chosen], [maps[k] for k in chosen])
            part = part._replace(truth=self._share(batch.truth, device))
            if batch.extents is not None:
                part = part._replace(extents=self._share(batch.extents, device))
            if detected is not None and "outputs" in distiller.needs:
                assert real.outputs is not None
                part = part._replace(outputs=(real.outputs, detected.outputs[device]))
            if detected is not None and "assigned" in distiller.needs:
                assert detected.assigned is not None
                part = part._replace(assigned=detected.assigned[device])
            if distiller.regions is not None:
                arrays = batch.regions[self._marked.index(distiller)]
                part = part._replace(regions=tuple(self._share(array, device) for array in arrays))
            seen.append(part)
        return seen

    def _share(self, array: np.ndarray, device: int) -> np.ndarray:
        """The rows of a device, as `split` deals them out."""
        return np.array_split(array, len(self.contexts))[device]

    def _update_distillers(
        self,
        batch: TrainBatch,
        teacher: Sequence[_Taught],
        student: Sequence[_Student],
        batch_size: int,
        position: Position,
    ) -> dict[str, list[NDArray]]:
        logs: dict[str, list[NDArray]] = {}
        for distiller in self.distillers:
            _add(
                logs, distiller.update(self._seen(distiller, batch, teacher, student), batch_size, position), distiller
            )
        return logs


def _add(
    named: dict[str, list[NDArray]],
    more: dict[str, list[NDArray]],
    distiller: Distiller,
    beside: Container[str] = (),
) -> None:
    """Put a distiller's losses or logs with those of the others; UsageError where one of all has the name already."""
    for name, parts in more.items():
        if name in named or name in beside:
            raise UsageError(
                f"the distiller {type(distiller).__name__} returns '{name}', which another part of the step "
                "returns too: rename it"
            )
        named[name] = parts


def _added(named: dict[str, list[NDArray]]) -> list[NDArray]:
    return [nd.add_n(*parts) for parts in zip(*named.values())]


def _whole(batch: TrainBatch) -> int:
    """Samples of the whole batch, of which each worker has a part."""
    return int(here().total([len(batch.images)])[0])


def _over_workers(name: str, values: list[float]) -> list[float]:
    """A diagnosis of the whole batch: norms of gradients, of which workers have parts, or shares of a mean."""
    if not here().distributed or not name.startswith("gradient_"):
        return here().total(values)
    return [math.sqrt(square) for square in here().total([value**2 for value in values])]
