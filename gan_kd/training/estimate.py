"""What memory a recipe takes, estimated from the graphs of its networks before anything runs, and what is free.

The factors were fitted to the peaks of short trainings on the CPU (tests/training/test_estimate.py has the comparison);
on GPUs, whose kernels choose workspaces of their own, nothing was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import mxnet as mx
from mxnet.gluon import Constant, HybridBlock

from gan_kd.data import workers
from gan_kd.detectors.adapters import Adapters, pair_maps
from gan_kd.detectors.base import Parts
from gan_kd.detectors.families import family
from gan_kd.distill.discriminator import DNet, RealAndFake
from gan_kd.distill.fine_grained import adaptation
from gan_kd.distributed.cluster import here
from gan_kd.errors import UsageError
from gan_kd.evaluation.evaluate import SPEED_BATCH
from gan_kd.gluon.footprint import FLOAT, count
from gan_kd.recipe import Optimizer, Recipe, Stage
from gan_kd.system.memory import GB, free_memory
from gan_kd.training.distillers import compared_places, method, places

# Of a process with MXNet, GluonCV, OpenCV, the kernels that oneDNN compiled, what the heap does not give back, and the
# report; with AVX-512, whose kernels are the largest.
_LIBRARIES = 460e6
_WORKER = 70e6  # of a loader's process, with NumPy and OpenCV
# MXNet's plan of a graph does not fill every gap: its memory over what is kept for backward, over the gradients that
# are alive at a time, and over what is alive in a pass without gradients.
_KEPT, _GRADIENTS, _FORWARD = 1.2, 1.5, 2.0
# Arrays of the compared maps' size that a distiller's own operators hold at a time; more for one that is not ours.
_MAPS = {
    "gan": 6, "cosine_attention": 5, "feature_imitation": 5, "fine_grained": 6, "cwd": 5, "information_map": 5,
    "outputs": 0, "localization": 0, "region_imitation": 5, "bounded_regression": 0,
}  # fmt: skip
_MAPS_OF_OTHERS = 8
# Likewise arrays of the predictions' size, where a distiller needs them.
_OF_OUTPUTS = 8

Bytes = dict[str, float]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Estimate:
    """Bytes of a stage by part: `device` on each of the devices, `host` in the training process and its workers."""

    stage: str
    devices: int
    device: Bytes
    host: Bytes

    def main_memory(self) -> Bytes:
        """With CPU contexts, which share it."""
        return {**{name: self.devices * size for name, size in self.device.items()}, **self.host}


def in_words(parts: Mapping[str, float]) -> str:
    """'teacher 0.9 GB, student 2.1, loader 0.6: 3.6 GB'."""
    first, *others = [(name, size) for name, size in parts.items() if size]
    listed = [f"{first[0]} {first[1] / GB:.1f} GB", *(f"{name} {size / GB:.1f}" for name, size in others)]
    return f"{', '.join(listed)}: {sum(parts.values()) / GB:.1f} GB"


def check_memory(recipe: Recipe, shapes: Mapping[str, Parts], contexts: Sequence[mx.Context]) -> str:
    """The estimate of the stage that takes most, in words. UsageError where it is more than what is free.

    shapes: the networks, as of `gan_kd.training.networks.assemble`.
    """
    if contexts[0].device_type == "cpu":
        return _compare(recipe, shapes, "main memory", free_memory(), Estimate.main_memory)
    free = min(mx.context.gpu_memory_info(context.device_id)[0] for context in contexts)
    on_gpu = _compare(recipe, shapes, "each GPU's memory", free, lambda estimate: estimate.device)
    return f"{on_gpu}; {_compare(recipe, shapes, 'main memory', free_memory(), lambda estimate: estimate.host)}"


def _compare(
    recipe: Recipe, shapes: Mapping[str, Parts], memory: str, free: float, parts: Callable[[Estimate], Bytes]
) -> str:
    stages = estimates(recipe, shapes)

    def largest(batch_size: int) -> tuple[float, str]:
        share = -(-batch_size // here().size)  # of this worker
        worst = max((stage(share) for stage in stages), key=lambda estimate: sum(parts(estimate).values()))
        return sum(parts(worst).values()), f"stage {worst.stage} takes about this of {memory}: {in_words(parts(worst))}"

    batch, devices = recipe.train.batch_size, len(recipe.train.contexts)
    needed, words = largest(batch)
    if needed <= free:
        return f"{words}, and {free / GB:.1f} GB are free" if math.isfinite(free) else words
    while needed > free and batch >= 2 * devices:
        batch //= 2
        needed, _ = largest(batch)
    way = f" ({batch} would take {needed / GB:.1f} GB)" if needed <= free else ""
    memory = "teacher.remember, " if recipe.teacher.remember else ""
    raise UsageError(
        f"{words}, but {free / GB:.1f} GB are free: lower {memory}--batch-size{way}, eval.batch_size, data.size or "
        "distill.gan.width"
    )


def estimates(recipe: Recipe, shapes: Mapping[str, Parts]) -> list[Callable[[int], Estimate]]:
    """For each stage a function of the batch size."""
    teacher, student = (_Network(recipe, shapes[one]) if one in shapes else None for one in ("teacher", "student"))
    return [_Stage(recipe, name, stage, teacher, student) for name, stage in recipe.stages.items()]


class _Network:
    """A network as shapes, and what images cost in it."""

    def __init__(self, recipe: Recipe, parts: Parts) -> None:
        self.extractor, self.head, size = parts.extractor, parts.head, parts.sizes.typical
        self.image: Shape = (1, 3, *size)
        self.maps: list[Shape] = [(1, *level.shape(size)) for level in parts.extractor.levels]
        self.cost = family(recipe.detector).cost(parts)

    def training(self, lender: _Network) -> float:
        """Bytes of an image in a training step through the head of `lender`, adversary and adapters aside."""
        parts = [(self.extractor, [self.image]), *lender.cost.training]
        return sum(_training(block, inputs) for block, inputs in parts)

    def evaluation(self, lender: _Network) -> float:
        """Bytes of an image in an evaluation: softmax, boxes and candidates are some copies of the predictions."""
        return self.teaching() + lender.predicting() + 6 * FLOAT * lender.cost.scores

    def teaching(self) -> float:
        """Bytes of an image in the extractor alone, without gradients."""
        return _FORWARD * count(self.extractor, [self.image]).forward

    def predicting(self) -> float:
        """Bytes of an image in the head alone, without gradients."""
        return sum(_FORWARD * count(block, inputs).forward for block, inputs in self.cost.forward)


class _Stage:
    """A stage as a function of the batch size."""

    def __init__(
        self, recipe: Recipe, name: str, stage: Stage, teacher: _Network | None, student: _Network | None
    ) -> None:
        trained = teacher if stage.trains == "teacher" else student
        assert trained is not None
        self.recipe, self.name, self.trained = recipe, name, trained
        self.devices = len(recipe.train.contexts)
        copies = self._copies(stage.optimizer)
        taught = teacher is not None and stage.trains in ("control", "distilled")
        lender = teacher if taught and recipe.distill.head != "own" else trained
        assert lender is not None
        weights = copies * (_weights(trained.extractor) + _weights(lender.head))
        self.training = trained.training(lender) + 2 * self._sample()
        self.evaluation = trained.evaluation(lender)
        self.remembered = recipe.teacher.remember * GB if stage.distillers else 0.0
        if stage.trains == "teacher":
            self.weights = {"teacher": weights, "student": 0.0, "critic": 0.0}
        else:
            self.weights = {"teacher": 0.0, "student": weights, "critic": 0.0}
        if teacher is not None and taught:
            self._taught(stage, teacher, copies)

    def _taught(self, stage: Stage, teacher: _Network, copies: float) -> None:
        """Add the teacher, adapters and what the distillers do."""
        pairs = pair_maps(self.trained.extractor, teacher.extractor, compared_places(self.recipe, stage.trains))
        own = [self.trained.maps[s] for s, _ in pairs]
        compared = [teacher.maps[t] for _, t in pairs]
        cells = sum(math.prod(shape) for shape in compared)
        adapters = Adapters([channels for _, channels, *_ in own], [channels for _, channels, *_ in compared])
        self.weights["student"] += copies * _weights(adapters)
        # Its extractor is frozen; its head keeps gradients that nobody uses.
        self.weights["teacher"] = _weights(teacher.extractor) + 2 * _weights(teacher.head)
        self.evaluation = max(self.evaluation, teacher.evaluation(teacher))
        if adapters.needed:
            self.training += _training(adapters, own)
        if not stage.distillers:
            return

        def at(name: str) -> list[int]:
            """The pairs that a distiller compares."""
            chosen = places(self.recipe, name)
            return [k for k, (_, t) in enumerate(pairs) if teacher.extractor.levels[t].place in chosen]

        held = sum(_MAPS.get(name, _MAPS_OF_OTHERS) for name in stage.distillers)
        self.training += teacher.teaching() + held * FLOAT * cells
        if any("outputs" in method(self.recipe, name).needs for name in stage.distillers):
            # The teacher's head, and the copies of the predictions that softmax and the distances make.
            self.training += teacher.predicting() + _OF_OUTPUTS * FLOAT * teacher.cost.outputs
        if "fine_grained" in stage.distillers:
            its = at("fine_grained")
            through = [(own if self.recipe.distill.head == "own" else compared)[k] for k in its]
            channels = [count for _, count, *_ in through], [compared[k][1] for k in its]
            for layer, shape in zip(adaptation(self.recipe.distill.fine_grained, *channels), through):
                self.weights["student"] += copies * _weights(layer)
                self.training += _training(layer, [shape])
        if "gan" in stage.distillers:
            gan, its = self.recipe.distill.gan, at("gan")
            maps = [compared[k] for k in its]
            seen = [(1, c * (2 if gan.condition == "teacher" else 1), *sides) for _, c, *sides in maps]
            sides = [self.trained.extractor.levels[pairs[k][0]].side for k in its]
            dnet = DNet([c for _, c, *_ in seen], sides, gan.width, gan.norm, gan.kind, gan.match > 0)
            self.weights["critic"] = self._copies(gan.optimizer) * _weights(dnet)
            self.training += _training(RealAndFake(dnet), 2 * seen) + _training(dnet, seen)

    def __call__(self, batch_size: int) -> Estimate:
        recipe = self.recipe
        share, measured = (-(-batch // self.devices) for batch in (batch_size, recipe.eval.batch_size))
        measured = max(measured, SPEED_BATCH)
        activations = max(share * self.training, measured * self.evaluation)
        slots = workers._SLOTS if recipe.train.num_workers else 1
        batches = batch_size * self._sample() + recipe.eval.batch_size * FLOAT * math.prod(self.trained.image)
        # While a network is measured the loader of training images stands by.
        loader = slots * batches + 2 * recipe.train.num_workers * _WORKER
        host = {"loader": loader, "remembered": self.remembered, "libraries": _LIBRARIES}
        return Estimate(self.name, self.devices, {**self.weights, "activations": activations}, host)

    def _sample(self) -> float:
        """Bytes of an image with its targets."""
        return FLOAT * (math.prod(self.trained.image) + self.trained.cost.targets)

    def _copies(self, optimizer: Optimizer) -> float:
        """Bytes of what is trained over those of the weights: gradients, moments, and the kernels' layout of weights.

        With several devices one sums their gradients up.
        """
        moments = 2 if optimizer.name == "adam" else int(optimizer.momentum > 0)
        return 3 + moments + int(self.devices > 1)


def _training(block: HybridBlock, inputs: Sequence[Shape]) -> float:
    found = count(block, inputs)
    return _KEPT * found.kept + _GRADIENTS * found.forward


def _weights(block: HybridBlock) -> float:
    """Bytes of its parameters."""
    parameters = block.collect_params().values()
    return float(sum(FLOAT * math.prod(p.shape) for p in parameters if not isinstance(p, Constant)))
