"""What a run needs before its first batch, and every refusal that needs no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import mxnet as mx
import numpy as np

from gan_kd.data.batch import Regions
from gan_kd.data.check import preflight
from gan_kd.data.dataset import DetectionDataset
from gan_kd.data.loader import Loader, worker_policy
from gan_kd.detectors.base import Detector, Parts
from gan_kd.detectors.families import family
from gan_kd.distill import custom
from gan_kd.distributed.cluster import here
from gan_kd.errors import UsageError, all_of
from gan_kd.evaluation.counting import check_truth
from gan_kd.gluon.contexts import open_contexts, start_amp
from gan_kd.recipe import Recipe
from gan_kd.recipe.families import FAMILIES
from gan_kd.training.distillers import comparing_outputs, require_given
from gan_kd.training.estimate import check_memory
from gan_kd.training.networks import (
    assemble,
    fetch_weights,
    named_teacher,
    require_fitting_head,
    warn_of_inheritance,
)


class Prepared(NamedTuple):
    """Devices, data, and what was found out about the run."""

    contexts: list[mx.Context]
    #: The training and the test split.
    data: tuple[DetectionDataset, DetectionDataset]
    #: Epochs of warm-up of the user's own distillers, by dotted name.
    warmups: dict[str, int]
    #: The estimate, in words.
    memory: str
    #: Of settings that are allowed, but cost accuracy.
    warning: str | None
    #: The one that teacher.weights names as a file, where this run has none yet.
    teacher: Detector | None


def prepare(recipe: Recipe, folder: Path) -> Prepared:
    """Look at devices, data, weights and memory for a run in this folder. UsageError or RunError for what is wrong."""
    with here().in_turn():  # images that are drawn and weights that are downloaded are there for the others then
        contexts, data, _, warmups = all_of(
            lambda: open_contexts(recipe.train.contexts),
            lambda: preflight(recipe.data),
            lambda: fetch_weights(recipe),
            lambda: custom.load_all(recipe),
        )
    check_truth(data[1], recipe.eval)
    if recipe.train.amp:
        start_amp()
    images, classes = len(data[0]), data[0].classes
    if recipe.train.batch_size > images:  # before the folder is made: the next try is then no second run
        raise UsageError(
            f"train.batch_size {recipe.train.batch_size} is more than the {images} training images of "
            f"{recipe.data.root}; lower it with --batch-size"
        )
    teacher = named_teacher(recipe, classes, folder)
    shapes = assemble(recipe, classes)
    require_given(recipe)
    _require_broad(recipe, shapes, data[0])
    require_fitting_head(recipe, shapes, comparing_outputs(recipe))
    if teacher is not None:  # its file may say otherwise than the recipe
        require_fitting_head(recipe, {**shapes, "teacher": teacher.parts()}, comparing_outputs(recipe))
    memory = check_memory(recipe, shapes, contexts)
    return Prepared(contexts, (data[0], data[1]), warmups, memory, warn_of_inheritance(recipe), teacher)


def _require_broad(recipe: Recipe, shapes: Mapping[str, Parts], images: DetectionDataset) -> None:
    """UsageError for a training image so long that its shorter side would be too small in the network's input."""
    least = FAMILIES[recipe.detector].shortest
    sides = np.array([(record.height, record.width) for record in images.records])
    extents = next(iter(shapes.values())).sizes.extents(sides)
    small = np.flatnonzero(extents.min(axis=1) < least)
    if len(small):
        (height, width), (high, wide) = sides[small[0]], extents[small[0]]
        raise UsageError(
            f"{images.records[small[0]].image} is {width}x{height} px, too long to train a {recipe.detector} on: it "
            f"would become {wide}x{high} px, with less than {least} px on its shorter side; take it out of the list "
            "of training images"
        )


def open_loader(
    recipe: Recipe, dataset: DetectionDataset, detector: Detector, regions: Sequence[Regions] = ()
) -> Loader:
    """Training batches with a network's targets; of a distributed job this worker's part of each.

    regions: what distillers want marked in every image.
    """
    return Loader(
        dataset,
        family(recipe.detector).train_transform(recipe, detector.parts()),
        recipe.train.batch_size,
        recipe.train.num_workers,
        recipe.train.seed,
        train=True,
        share=(here().rank, here().size),
        policy=worker_policy(recipe.train),
        regions=regions,
    )
