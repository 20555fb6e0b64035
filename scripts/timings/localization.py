"""Localization Distillation's step against what it cannot do without: the student's step and the teacher's pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mxnet import nd

from gan_kd.data.batch import TrainBatch
from gan_kd.detectors.gfl import priors
from gan_kd.detectors.gfl.targets import assign
from gan_kd.recipe import Recipe, load
from gan_kd.system.timing import Result, in_turn, ratios
from gan_kd.training.networks import Networks, build_student, build_teacher
from gan_kd.training.stage import Stage
from scripts.timings.step import CPU, HERE

CLASSES = ("cat", "cow", "dog", "horse", "sheep")
_RANDOM = ("teacher.init=random", "student.init=random")


def run(rounds: int) -> list[Result]:
    """ld_step_over_parts and ld_step_remembered of the GFL study's networks and batch."""
    return measure(rounds)


def measure(rounds: int, size: int = 256, batch: int = 8, width: int = 64) -> list[Result]:
    """Seconds of a step with all three terms by those of the student's own step and the teacher's predictions, and by
    those of the student's own step alone where the teacher remembers the images."""
    settings = (*_RANDOM, f"data.size={size}", f"gfl.width={width}")
    recipe, remembering = (load("mini/gfl", (*settings, f"teacher.remember={room}")) for room in (0, 1))
    samples = random_batch(batch, size)
    teacher = build_teacher(recipe, CLASSES)
    teacher.extractor.freeze()
    networks = build_student(recipe, CLASSES, "distilled", teacher)
    seconds = in_turn(
        {
            "LD": _step(recipe, "localization", networks, samples),
            "LD, remembered": _step(remembering, "localization", networks, samples),
            "student": _step(recipe, "baseline", build_student(recipe, CLASSES, "baseline", None), samples),
            "teacher": _prediction(networks, nd.array(samples.images)),
        },
        rounds,
    )
    step = "Step with main KD, main LD and VLR LD"
    networks_in_words = f"GFL mobilenet0.25 from mobilenet1.0, {width} channels, {size} px, batch {batch}, float32."
    details = {f"{name}, s": float(np.median(each)) for name, each in seconds.items()}
    return [
        Result(
            "ld_step_over_parts",
            f"{step} by the sum of the student's step and the teacher's predictions: {networks_in_words}",
            ratios(seconds["LD"], np.add(seconds["student"], seconds["teacher"]).tolist()),
            1.05,
            at_least=False,
            details=details,
        ),
        Result(
            "ld_step_remembered",
            f"{step} by the student's own step, predictions of all images remembered: {networks_in_words}",
            ratios(seconds["LD, remembered"], seconds["student"]),
            1.1,
            at_least=False,
            details=details,
        ),
    ]


def random_batch(count: int, size: int) -> TrainBatch:
    """A batch of noise with one or two objects an image at random places, and what ATSS assigns."""
    rng, made = np.random.default_rng(0), priors.make(priors.shapes(size, size))
    truth = np.full((count, 2, 5), -1, np.float32)
    objects, thresholds = np.empty((count, len(made.boxes)), np.int32), np.zeros((count, 2))
    for image in range(count):
        number = 1 + image % 2
        corner = rng.uniform(0, size * 0.4, (number, 2))
        sides = rng.uniform(size * 0.25, size * 0.6, (number, 2))
        truth[image, :number] = np.column_stack([corner, corner + sides, rng.integers(len(CLASSES), size=number)])
        assigned = assign(made, truth[image, :number, :4])
        objects[image], thresholds[image, :number] = assigned.objects, assigned.thresholds
    return TrainBatch(rng.standard_normal((count, 3, size, size), "float32"), truth, (objects, thresholds))


def _step(recipe: Recipe, stage: str, networks: Networks, batch: TrainBatch) -> Callable[[], None]:
    networks.hybridize()
    train = Stage(recipe, stage, networks, [CPU]).step

    def call() -> None:
        train(batch, HERE)
        nd.waitall()

    return call


def _prediction(networks: Networks, images: nd.NDArray) -> Callable[[], None]:
    assert networks.teacher is not None and networks.teacher_head is not None
    teacher, head = networks.teacher, networks.teacher_head

    def call() -> None:
        maps = teacher(images)
        head.outputs([maps[index] for index in teacher.to_head])
        nd.waitall()

    return call
