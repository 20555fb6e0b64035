"""What tests of several rooms build: detectors, what distillers are built with, a step and its batches."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
import numpy as np
from mxnet.gluon import Block

from gan_kd.data.batch import Regions, TrainBatch
from gan_kd.detectors import saved
from gan_kd.detectors.base import Detector, Level
from gan_kd.distill.base import Compared
from gan_kd.gluon.optim import Position
from gan_kd.recipe import Eval, Recipe
from gan_kd.training.networks import Networks, build_student, build_teacher
from gan_kd.training.stage import Stage
from gan_kd.training.step import Step

CPU = mx.cpu(0)
CLASSES = ("circle", "square")
SIZE, BATCH = 128, 4
HERE = Position(0, 10, 1)


def compared(
    channels: Sequence[int], sizes: Sequence[int], contexts: Sequence[mx.Context] = (CPU,), seed: int = 0
) -> Compared:
    """What a distiller is built with, for pairs of square maps of a detector with input 64 px."""
    levels = [Level("neck", count, 64 / side, side) for count, side in zip(channels, sizes)]
    return Compared(levels, tuple(contexts), student_channels=tuple(channels), seed=seed)


def step_of(of: Recipe, contexts: Sequence[mx.Context] = (CPU,)) -> Step:
    """A step of the recipe's one stage, of a distilled student, with everything that it moves.

    Teacher and student are fresh, and the same at every call.
    """
    (name,) = of.stages
    teacher = build_teacher(of, CLASSES)
    teacher.extractor.freeze()
    networks = build_student(of, CLASSES, "distilled", teacher)
    networks.move(contexts)
    return Stage(of, name, networks, contexts).step


def batch(networks: Networks, seed: int = 0, size: int = BATCH) -> TrainBatch:
    """Noise as images and as targets of SSD; one anchor of twenty has an object, of the first class."""
    rng = np.random.default_rng(seed)
    anchors = len(networks.detector.head.anchors(networks.detector.extractor.sizes))
    targets = np.where(rng.random((size, anchors)) < 0.05, 1.0, 0.0).astype("float32")
    images, boxes = rng.standard_normal((size, 3, SIZE, SIZE)), rng.standard_normal((size, anchors, 4))
    truth = np.full((size, 1, 5), -1, "float32")
    return TrainBatch(images.astype("float32"), truth, (targets, boxes.astype("float32")))


def marks(regions: Regions, objects: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, ...]:
    """What the loader would mark in images of this side with these objects, (m, 5) each."""
    shapes = regions.arrays(size, size)
    arrays: list[np.ndarray] = [np.full((len(objects), *shape), -1, dtype) for shape, dtype in shapes]
    for row, rows in enumerate(objects):
        regions.write(rows, size, size, [array[row] for array in arrays])
    return tuple(arrays)


def snapshot(block: Block) -> dict[str, np.ndarray]:
    """Copies of its parameters."""
    return {name: p.data(p.list_ctx()[0]).asnumpy().copy() for name, p in block.collect_params().items()}


def build_detector(
    backbone: str,
    size: int,
    classes: Sequence[str],
    head_backbone: str | None = None,
    measured: Eval | None = None,
    adapter: str = "linear",
) -> Detector:
    """An SSD with random weights; head_backbone: of the teacher whose head it has."""
    about = {
        "backbone": backbone, "size": size, "classes": list(classes), "head": "teacher" if head_backbone else "own",
        "head_backbone": head_backbone or backbone, "adapter": adapter,
    }  # fmt: skip
    return saved.restore(about, measured or Eval())
