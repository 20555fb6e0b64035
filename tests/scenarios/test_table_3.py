"""Every cell of table 3, and its teacher: Faster R-CNN at its real size takes a step."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest

from gan_kd.data.batch import TrainBatch
from gan_kd.data.dataset import class_names
from gan_kd.data.loader import Loader
from gan_kd.data.record import Record
from gan_kd.detectors.base import Detector, Parts
from gan_kd.detectors.families import family
from gan_kd.distill.base import Distiller
from gan_kd.gluon.optim import Optimisation, Position
from gan_kd.recipe import Recipe, load, names
from gan_kd.training.distillers import build_distillers
from gan_kd.training.networks import Networks, build_student, build_teacher
from gan_kd.training.step import Step

CPU = [mx.cpu(0)]
RECIPES = {name: load(name) for name in names() if name.startswith("faster_rcnn/")}
ALONE = [name for name, recipe in RECIPES.items() if recipe.published and recipe.published.column == "none"]
TAUGHT = [name for name, recipe in RECIPES.items() if recipe.published and recipe.published.column != "none"]


@pytest.fixture(autouse=True)
def freed() -> Iterator[None]:
    """Gives a test's memory back: Gluon's blocks refer to each other."""
    yield
    gc.collect()


class Drawn:
    """One image of 500 x 375 px, as most of VOC's are, with two objects."""

    def __init__(self, folder: Path) -> None:
        path = folder / "drawn.png"
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8))
        boxes = np.array([[20, 30, 220, 330], [300, 100, 460, 200]], np.float32)
        self.rows = np.column_stack([boxes, [3, 7], [0, 0]]).astype(np.float32)
        self.records = [Record("drawn", path, 500, 375, boxes, np.array([3, 7]), np.zeros(2, bool))]

    def __len__(self) -> int:
        return 1

    def image(self, index: int, reduction: int = 1) -> np.ndarray:
        return cv2.imread(str(self.records[index].image))[..., ::-1]

    def label(self, index: int) -> np.ndarray:
        return self.rows


def unpublished(name: str) -> Recipe:
    """A shipped recipe for this machine: from random weights, on the CPU."""
    start = ["teacher.init=random", "student.init=random", "train.contexts=['cpu:0']", "train.batch_size=1"]
    return load(name, start)


def batch_of(recipe: Recipe, detector: Detector, distillers: Sequence[Distiller], folder: Path) -> TrainBatch:
    parts = Parts(detector.extractor, detector.head, detector.sizes)
    transform = family(recipe.detector).train_transform(recipe, parts)
    regions = [distiller.regions for distiller in distillers if distiller.regions is not None]
    with Loader(Drawn(folder), transform, 1, 0, 0, train=True, regions=regions) as loader:
        found: TrainBatch = next(iter(loader.epoch(0)))
    return found


def one_step(recipe: Recipe, stage: str, networks: Networks, folder: Path) -> None:
    """A real training step: the losses are finite, what is trained moves, what is frozen does not."""
    plan, detector = recipe.stages[stage], networks.detector
    distillers = build_distillers(recipe, plan, networks, CPU)
    optimisation = Optimisation(networks.parameters(distillers), plan.optimizer, plan.schedule, CPU)
    named = detector.weights()
    before = {name: parameter.data().asnumpy() for name, parameter in named.items()}
    batch = batch_of(recipe, detector, distillers, folder)
    assert batch.images.shape == (1, 3, 600, 800)
    networks.hybridize()
    losses = Step(networks, distillers, optimisation, CPU)(batch, Position(5, 10, plan.epochs))
    expected = {"rpn_conf", "rpn_loc", "conf", "loc"}
    expected |= {"adversarial", "critic"} if stage == "adversarial" else set()
    expected |= {"fine_grained"} if stage == "imitation" else set()
    assert expected <= set(losses), set(losses)
    for name, loss in losses.items():
        assert np.isfinite(sum(part.asscalar() for part in loss)), name
    moved = {name for name, value in before.items() if not np.array_equal(value, named[name].data().asnumpy())}
    assert "features.0.weight" not in moved and not any("gamma" in name or "running" in name for name in moved)
    assert {"features.6.0.conv1.weight", "rpn.score.weight", "class_predictor.weight"} <= moved


@pytest.mark.slow
def test_the_teacher_takes_a_step(tmp_path: Path) -> None:
    recipe = unpublished("faster_rcnn/teacher-resnet101_v1d")
    teacher = build_teacher(recipe, class_names(recipe.data))
    one_step(recipe, "teacher", Networks(teacher, family(recipe.detector).detection_loss(recipe)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_a_baseline_takes_a_step(name: str, tmp_path: Path) -> None:
    recipe = unpublished(name)
    one_step(recipe, "baseline", build_student(recipe, class_names(recipe.data), "baseline", None), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TAUGHT)
def test_a_distilled_student_takes_an_adversarial_step(name: str, tmp_path: Path) -> None:
    recipe = unpublished(name)
    classes = class_names(recipe.data)
    teacher = build_teacher(recipe, classes)
    teacher.extractor.freeze()
    networks = build_student(recipe, classes, "distilled", teacher, ["backbone"])
    assert networks.bridge is None and networks.detector.adapters is None  # 1024 channels on both sides
    one_step(recipe, "imitation" if "fgfi" in name else "adversarial", networks, tmp_path)


@pytest.mark.parametrize("name", ALONE)
def test_the_baseline_alone_is_the_one_beside_the_distilled_student(name: str) -> None:
    alone = RECIPES[name]
    beside = next(RECIPES[other] for other in TAUGHT if other.startswith(f"{name}-resnet101_v1d"))
    assert (alone.data, alone.student, alone.eval, alone.train) == (
        beside.data, beside.student, beside.eval, beside.train
    )  # fmt: skip
    assert alone.faster_rcnn == beside.faster_rcnn
    assert alone.stages == {key: stage for key, stage in beside.stages.items() if stage.trains == "baseline"}
