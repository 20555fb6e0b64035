"""One batch: teacher and student maps once each, the distillers' own step, then the student's step."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, nd
from mxnet.ndarray import NDArray

from gan_kd.data.batch import TrainBatch
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.ssd.extractor import Extractor
from gan_kd.detectors.ssd.head import SSDHead
from gan_kd.detectors.ssd.loss import MultiBoxLoss, scale_of
from gan_kd.detectors.ssd.network import Detector
from gan_kd.distill.base import Distiller, Maps, Outputs, Seen, leaves, norms
from gan_kd.distill.cosine_attention import similarity
from gan_kd.distributed.cluster import here
from gan_kd.errors import UsageError
from gan_kd.gluon.contexts import full, split
from gan_kd.gluon.optim import Optimisation, Position
from gan_kd.gluon.sync_bn import on_devices

#: Of a diagnosis, what every worker finds the same.
SHARED = ("maps", "critic_at_bound")


@dataclass
class Networks:
    """What a stage trains, and what it learns from."""

    detector: Detector
    #: The frozen teacher, where there is one to learn from.
    teacher: Extractor | None = None
    #: Its head, which runs only for distillers that need outputs.
    teacher_head: SSDHead | None = None
    #: (student map, teacher map) that belong together.
    pairs: Sequence[tuple[int, int]] = ()
    #: Adapters that serve the distillers alone, because the student keeps its own head; not deployed.
    bridge: Adapters | None = None

    def parameters(self, distillers: Sequence[Distiller] = ()) -> dict[str, gluon.Parameter]:
        """Everything that the student's optimiser moves in a stage with these distillers, by its name in files.

        The bridge, as `bridge.*`, only where one of them compares maps: else it would have no gradient, which Gluon
        refuses. Without the anchors, which are constants.
        """
        detector = self.detector
        parameters = {**detector.extractor._collect_params_with_prefix(), **detector.head._collect_params_with_prefix()}
        if detector.adapters is not None:
            parameters.update(detector.adapters._collect_params_with_prefix("adapters"))
        if self.bridge is not None and any(distiller.compares_maps for distiller in distillers):
            parameters.update(self.bridge._collect_params_with_prefix("bridge"))
        return parameters

    def hybridize(self) -> None:
        """Compile every part for training; an evaluation in between compiles the detector anew for itself."""
        blocks = (
            self.detector.extractor,
            self.detector.adapters,
            self.detector.head,
            self.bridge,
            self.teacher,
            self.teacher_head,
        )
        for block in blocks:
            if block is not None:
                # Not static_shape: with it MXNet does not know that backward writes BatchNorm's statistics, and whoever
                # reads or sets them may come before it. It brings no speed here.
                block.hybridize(static_alloc=True)


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
    ) -> None:
        """sync_bn: the student's BatchNorm takes its statistics over all contexts together."""
        self.networks = networks
        self.distillers = distillers
        self.optimisation = optimisation
        self.contexts = contexts
        self._compares_maps = any(distiller.compares_maps for distiller in distillers)
        self._extract = on_devices(networks.detector.extractor, sync_bn=sync_bn)
        self.loss = MultiBoxLoss()
        self.loss.hybridize(static_alloc=True, static_shape=True)

    def __call__(self, batch: TrainBatch, position: Position) -> dict[str, list[NDArray]]:
        """Train on one batch; returns the losses by name, one (1,) array a device that add up to the batch mean.

        Over the devices of all workers, that is.
        """
        images, targets, size = self._split(batch)
        teacher = [self._taught(x) for x in images]
        with autograd.record():
            through_head, student = self._student_maps(images)
        seen = [Seen(maps, fake) for (maps, _), fake in zip(teacher, student)]
        logs = self._update_distillers(seen, size, position)
        with autograd.record():
            outputs = self._outputs(through_head)
            named = self._ssd_losses(outputs, targets)
            seen = _with_outputs(seen, [real for _, real in teacher], outputs)
            for distiller in self.distillers:
                _add(named, distiller.shares(seen, size), distiller, logs)
            totals = [nd.add_n(*losses) for losses in zip(*named.values())]
        self.optimisation.backward(totals)
        self.optimisation.step(position._replace(warmed=0))  # the student did not warm up
        return {**named, **logs}

    def warm_up(self, batch: TrainBatch, position: Position) -> dict[str, list[NDArray]]:
        """Let the distillers train their own parameters; the student stands still."""
        images = split(batch.images, self.contexts)
        teacher = [self._taught(x)[0] for x in images]
        # Batch statistics as in training, but nothing is recorded, so the student's BatchNorm keeps its own.
        with autograd.train_mode():
            _, student = self._student_maps(images)
        return self._update_distillers(list(map(Seen, teacher, student)), _whole(batch)[0], position)

    def diagnose(self, batch: TrainBatch) -> dict[str, list[float]]:
        """How the distillers stand beside the detection loss on a batch: lists of one number a compared map, by name.

        `maps`: the side, cells. `attention_cosine`: similarity of student's and teacher's attention, mean over the
        batch. `gradient_detection`: norm of the gradient of L_conf + L_loc at the map that the head takes, which with
        the student's own head is the one before the adapter; so are the gradients of losses on the head's outputs. And
        what each distiller tells, of the maps that it compares. Waits for the devices; parameters, their gradients and
        BatchNorm's statistics stay.
        """
        images, targets, size = self._split(batch)
        teacher = [self._taught(x) for x in images]
        with autograd.train_mode():  # as in `warm_up`
            through_head, student = self._student_maps(images)
        seen = [Seen(maps, fake) for (maps, _), fake in zip(teacher, student)]
        cosines = [[nd.sum(similarity(*pair)) for pair in zip(part.teacher, part.student)] for part in seen]
        found = {
            "maps": [m.shape[-1] for m in student[0]],
            "attention_cosine": [sum(float(part.asscalar()) for part in parts) / size for parts in zip(*cosines)],
            "gradient_detection": self._norms_through_head(
                through_head, lambda outputs: {"detection": _added(self._ssd_losses(outputs, targets))}
            )["detection"],
        }
        for distiller in self.distillers:
            if "outputs" in distiller.needs:
                found.update(self._diagnose_outputs(distiller, seen, [real for _, real in teacher], through_head, size))
            else:
                found.update(distiller.diagnose(seen, size))
        return {name: values if name in SHARED else _over_workers(name, values) for name, values in found.items()}

    def _diagnose_outputs(
        self,
        distiller: Distiller,
        seen: Sequence[Seen],
        teacher: Sequence[Outputs | None],
        through_head: Sequence[Maps],
        size: int,
    ) -> dict[str, list[float]]:
        def losses_of(outputs: Sequence[Outputs]) -> dict[str, list[NDArray]]:
            return distiller.shares(_with_outputs(seen, teacher, outputs), size)

        found = self._norms_through_head(through_head, losses_of)
        return {f"gradient_{name}": values for name, values in found.items()}

    def _norms_through_head(
        self,
        through_head: Sequence[Maps],
        losses_of: Callable[[Sequence[Outputs]], dict[str, list[NDArray]]],
    ) -> dict[str, list[float]]:
        """Norms of losses on the head's outputs, by name, at the compared ones of the maps that it takes."""
        inputs = [leaves(maps) for maps in through_head]
        with autograd.record():
            losses = losses_of(self._outputs(inputs))
        found = {}
        for name, parts in losses.items():
            slopes = [autograd.grad([loss], maps, retain_graph=True) for loss, maps in zip(parts, inputs)]
            found[name] = norms([[maps[index] for index, _ in self.networks.pairs] for maps in slopes])
        return found

    def _split(self, batch: TrainBatch) -> tuple[list[NDArray], list[tuple[NDArray, ...]], int]:
        """Images, and what the SSD loss compares with; one entry a device. And the samples of the whole batch."""
        # All copies first: on the CPU each waits until MXNet's queue is empty.
        images, cls_targets, box_targets = [split(array, self.contexts) for array in (batch.images, *batch.targets)]
        size, positives = _whole(batch)
        dtype = batch.targets[0].dtype
        scales = [nd.array([scale_of(positives)], ctx=context, dtype=dtype) for context in self.contexts]
        return images, list(zip(cls_targets, box_targets, scales)), size

    def _taught(self, images: NDArray) -> tuple[Maps, Outputs | None]:
        """The teacher's compared maps, and its outputs where a distiller needs them.

        Outside `record` and in predict mode: the teacher's BatchNorm must not move either.
        """
        if self.networks.teacher is None or not self.distillers:
            return [], None
        maps = self.networks.teacher(images)
        outputs = None
        if any("outputs" in distiller.needs for distiller in self.distillers):
            assert self.networks.teacher_head is not None
            outputs = Outputs(*map(full, self.networks.teacher_head(*maps)))
        return [full(maps[index]) for _, index in self.networks.pairs], outputs

    def _student_maps(self, images: Sequence[NDArray]) -> tuple[list[Maps], list[Maps]]:
        """On every device the maps that the head takes, and those that the distillers compare with the teacher's.

        Where none compares maps, these are before the bridge, which then does not learn.
        """
        through_head, student = zip(*map(self._adapted, self._extract([[x] for x in images])))
        return list(through_head), list(student)

    def _adapted(self, maps: Maps) -> tuple[Maps, Maps]:
        if self.networks.detector.adapters is not None:
            maps = self.networks.detector.adapters(*maps)
        maps = [full(m) for m in maps]
        compared = [maps[index] for index, _ in self.networks.pairs] if self.distillers else []
        if self.networks.bridge is None or not self._compares_maps:
            return maps, compared
        return maps, [full(m) for m in self.networks.bridge(*compared)]

    def _update_distillers(self, seen: Sequence[Seen], batch_size: int, position: Position) -> dict[str, list[NDArray]]:
        logs: dict[str, list[NDArray]] = {}
        for distiller in self.distillers:
            _add(logs, distiller.update(seen, batch_size, position), distiller)
        return logs

    def _outputs(self, through_head: Sequence[Maps]) -> list[Outputs]:
        return [Outputs(*map(full, self.networks.detector.head(*maps))) for maps in through_head]

    def _ssd_losses(self, outputs: Sequence[Outputs], targets: Sequence[Sequence[NDArray]]) -> dict[str, list[NDArray]]:
        """L_conf and L_loc, one entry a device."""
        conf, loc = zip(*[self.loss(*predictions, *rest) for predictions, rest in zip(outputs, targets)])
        return {"conf": list(conf), "loc": list(loc)}


def _with_outputs(seen: Sequence[Seen], teacher: Sequence[Outputs | None], student: Sequence[Outputs]) -> list[Seen]:
    """What distillers see with the predictions of both, where the teacher's were asked for."""
    return [
        part if real is None else part._replace(outputs=(real, own)) for part, real, own in zip(seen, teacher, student)
    ]


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


def _whole(batch: TrainBatch) -> tuple[int, int]:
    """Samples and positive anchors of the whole batch, of which each worker has a part."""
    size, positives = here().total([len(batch.images), np.count_nonzero(batch.targets[0] > 0)])
    return int(size), int(positives)


def _over_workers(name: str, values: list[float]) -> list[float]:
    """A diagnosis of the whole batch: norms of gradients, of which workers have parts, or shares of a mean."""
    if not here().distributed or not name.startswith("gradient_"):
        return here().total(values)
    return [math.sqrt(square) for square in here().total([value**2 for value in values])]
