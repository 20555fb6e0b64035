"""The tables of Localization Distillation: every network at its real size takes a step, every row gives its losses.

Images are broad, so that steps take seconds: the longer side is the recipes' 1,333 px, the shorter one 200.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd

from gan_kd.data.batch import TrainBatch
from gan_kd.data.dataset import class_names
from gan_kd.data.loader import Loader
from gan_kd.data.record import Record
from gan_kd.detectors.base import Detector
from gan_kd.detectors.families import family
from gan_kd.distill.base import Seen, leaves
from gan_kd.gluon.optim import Optimisation, Position
from gan_kd.recipe import Recipe, load, names
from gan_kd.training.distillers import build_distillers
from gan_kd.training.networks import Networks, build_student, build_teacher
from gan_kd.training.step import Step
from tests.scenarios.test_table_3 import Drawn

CPU = [mx.cpu(0)]
RECIPES = {name: load(name) for name in names() if name.startswith("gfl/") and name != "gfl/base"}
TAUGHT = [name for name, recipe in RECIPES.items() if recipe.published and recipe.published.column != "none"]
ALONE = [name for name, recipe in RECIPES.items() if recipe.published and recipe.published.column == "none"]
#: Most rows are of this pair, which takes its step with two distillers.
PAIR = "gfl/imitation-ours-general"
#: A recipe of each other pair of networks; VOC's differ from COCO's in the number of classes alone.
OTHERS = ["gfl/resnet18_v1-resnet101_v1", "gfl/resnet34_v1-resnet101_v1"]


class Broad(Drawn):
    """One image of 640 x 96 px with two objects."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        path, boxes = folder / "broad.png", np.array([[25, 8, 280, 85], [380, 26, 590, 51]], np.float32)
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (96, 640, 3), dtype=np.uint8))
        self.rows = np.column_stack([boxes, [3, 7], [0, 0]]).astype(np.float32)
        self.records = [Record("broad", path, 640, 96, boxes, np.array([3, 7]), np.zeros(2, bool))]


class Remembering(Step):
    """Keeps what the distillers saw."""

    seen: list[Seen]

    def _seen(self, *arguments: Any, **named: Any) -> list[Seen]:
        self.seen = super()._seen(*arguments, **named)
        return self.seen


@pytest.fixture(autouse=True)
def freed() -> Iterator[None]:
    """Gives a test's memory back: Gluon's blocks refer to each other."""
    yield
    gc.collect()


def unpublished(name: str) -> Recipe:
    """A shipped recipe for this machine: from random weights, on the CPU."""
    start = ["teacher.init=random", "student.init=random", "train.contexts=['cpu:0']", "train.batch_size=1"]
    recipe = load(name, start)
    return dataclasses.replace(recipe, teacher=dataclasses.replace(recipe.teacher, weights=None))


def one_step(recipe: Recipe, stage: str, networks: Networks, folder: Path) -> Remembering:
    """A real training step: the losses are finite, what is trained moves, what is frozen does not."""
    plan, detector = recipe.stages[stage], networks.detector
    distillers = build_distillers(recipe, plan, networks, CPU)
    optimizer = dataclasses.replace(plan.optimizer, wd=0.0)  # weight decay moves what has no gradient, too
    optimisation = Optimisation(networks.parameters(distillers), optimizer, plan.schedule, CPU)
    named = detector.weights()
    before = {name: parameter.data().asnumpy() for name, parameter in named.items()}
    transform = family(recipe.detector).train_transform(recipe, detector.parts())
    networks.hybridize()
    step = Remembering(networks, distillers, optimisation, CPU)
    with Loader(Broad(folder), transform, 1, 0, 0, train=True) as loader:
        batch: TrainBatch = next(iter(loader.epoch(0)))
        assert batch.images.shape == (1, 3, 224, 1344)  # 200 and 1,333 padded to multiples of 32
        losses = step(batch, Position(1000, 10, plan.epochs))
    for name, loss in losses.items():
        assert np.isfinite(sum(part.asscalar() for part in loss)), name
    moved = {name for name, value in before.items() if not np.array_equal(value, named[name].data().asnumpy())}
    frozen = {name for name, parameter in named.items() if parameter.grad_req == "null"}
    weights = {name for name in named if name.endswith("weight")}
    assert "backbone.features.0.weight" in frozen and not frozen & moved
    assert weights - frozen <= moved, weights - frozen - moved
    return step


@pytest.fixture(scope="module")
def teacher() -> Detector:
    """The teacher of all pairs."""
    recipe = unpublished(PAIR)
    found = build_teacher(recipe, class_names(recipe.data))
    found.extractor.freeze()
    return found


@pytest.fixture(scope="module")
def taught(teacher: Detector, tmp_path_factory: pytest.TempPathFactory) -> Remembering:
    """The step of the pair of most rows, which leaves the teacher as it is."""
    recipe = unpublished(PAIR)
    before = {name: parameter.data().asnumpy() for name, parameter in teacher.weights().items()}
    networks = build_student(recipe, teacher.classes, "distilled", teacher)
    step = one_step(recipe, "distilled", networks, tmp_path_factory.mktemp("taught"))
    after = {name: parameter.data().asnumpy() for name, parameter in teacher.weights().items()}
    assert all(np.array_equal(array, after[name]) for name, array in before.items())
    return step


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TAUGHT if RECIPES[name].student.backbone == "resnet50_v1"])
def test_a_row_has_its_losses_in_a_step_of_its_networks(name: str, taught: Remembering) -> None:
    recipe, (seen,) = unpublished(name), taught.seen
    assert seen.outputs is not None
    teacher, student = seen.outputs
    fake = seen._replace(student=leaves(seen.student), outputs=(teacher, type(student)(*leaves(list(student)))))
    with autograd.record():
        named: dict[str, list[Any]] = {}
        for distiller in build_distillers(recipe, recipe.stages["distilled"], taught.networks, CPU):
            named.update(distiller.shares([fake], 1))
        total = nd.add_n(*[loss for (loss,) in named.values()])
    total.backward()
    values = [loss.asscalar() for (loss,) in named.values()]
    assert min(values) >= 0 and 0 < sum(values) < np.inf, named  # gamma 1 leaves no valuable region
    assert fake.outputs is not None
    gradients = [array.grad.asnumpy() for array in (*fake.student, *fake.outputs[1])]
    assert all(np.isfinite(gradient).all() for gradient in gradients) and any(map(np.any, gradients))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_a_student_of_the_other_pairs_takes_a_step(name: str, teacher: Detector, tmp_path: Path) -> None:
    recipe = unpublished(name)
    one_step(recipe, "distilled", build_student(recipe, teacher.classes, "distilled", teacher), tmp_path)


@pytest.mark.slow
def test_the_teacher_takes_a_step(tmp_path: Path) -> None:
    recipe = unpublished("gfl/teacher-resnet101_v1")
    networks = Networks(build_teacher(recipe, class_names(recipe.data)), family(recipe.detector).detection_loss(recipe))
    one_step(recipe, "teacher", networks, tmp_path)


def test_every_pair_of_networks_takes_a_step() -> None:
    def pair(name: str) -> tuple[Any, ...]:
        return RECIPES[name].student.backbone, RECIPES[name].teacher.backbone, RECIPES[name].gfl

    assert {pair(name) for name in TAUGHT} == {pair(name) for name in (PAIR, *OTHERS)}


@pytest.mark.parametrize("name", ALONE)
def test_the_baseline_alone_is_the_one_beside_the_distilled_student(name: str) -> None:
    alone = RECIPES[name]
    for other in [other for other in TAUGHT if RECIPES[other].student == alone.student]:
        beside = RECIPES[other]
        if beside.data == alone.data:
            assert (alone.train, alone.eval, alone.gfl) == (beside.train, beside.eval, beside.gfl)
            assert alone.stages == {key: stage for key, stage in beside.stages.items() if stage.trains == "baseline"}
