"""Every cell of table 3, and its teacher: Faster R-CNN on an image of the real size takes a step.

The image is a square one, the smallest of this size; map, anchors and proposals are as in the recipes. Of the 128
regions, which go through the last layers one by one and take most of the time, there are 16. One pair of networks
serves all rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
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


class Drawn:
    """One image of 375 x 375 px with two objects."""

    def __init__(self, folder: Path) -> None:
        path = folder / "drawn.png"
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (375, 375, 3), dtype=np.uint8))
        boxes = np.array([[20, 30, 220, 330], [200, 100, 360, 200]], np.float32)
        self.rows = np.column_stack([boxes, [3, 7], [0, 0]]).astype(np.float32)
        self.records = [Record("drawn", path, 375, 375, boxes, np.array([3, 7]), np.zeros(2, bool))]

    def __len__(self) -> int:
        return 1

    def image(self, index: int, reduction: int = 1) -> np.ndarray:
        return cv2.imread(str(self.records[index].image))[..., ::-1]

    def label(self, index: int) -> np.ndarray:
        return self.rows


def unpublished(name: str, *overrides: str) -> Recipe:
    """A shipped recipe for this machine: from random weights, on the CPU, with fewer regions."""
    start = ["teacher.init=random", "student.init=random", "train.contexts=['cpu:0']", "train.batch_size=1"]
    return load(name, [*start, "faster_rcnn.samples=16", *overrides])


def batch_of(recipe: Recipe, detector: Detector, distillers: Sequence[Distiller], folder: Path) -> TrainBatch:
    parts = Parts(detector.extractor, detector.head, detector.sizes)
    transform = family(recipe.detector).train_transform(recipe, parts)
    regions = [distiller.regions for distiller in distillers if distiller.regions is not None]
    with Loader(Drawn(folder), transform, 1, 0, 0, train=True, regions=regions) as loader:
        found: TrainBatch = next(iter(loader.epoch(0)))
    return found


def one_step(recipe: Recipe, stage: str, networks: Networks, folder: Path) -> None:
    """A real training step: losses are finite, what is trained moves, what is frozen does not. Then all is undone."""
    plan, detector = recipe.stages[stage], networks.detector
    distillers = build_distillers(recipe, plan, networks, CPU)
    optimisation = Optimisation(networks.parameters(distillers), plan.optimizer, plan.schedule, CPU)
    named = detector.weights()
    before = {name: parameter.data().asnumpy() for name, parameter in named.items()}
    batch = batch_of(recipe, detector, distillers, folder)
    assert batch.images.shape == (1, 3, 600, 600)
    networks.hybridize()
    losses = Step(networks, distillers, optimisation, CPU)(batch, Position(500, 1000, plan.epochs))
    expected = {"rpn_conf", "rpn_loc", "conf", "loc"}
    expected |= {"adversarial", "critic", "cosine_attention"} if stage == "adversarial" else set()
    expected |= {"fine_grained"} if stage == "imitation" else set()
    assert set(losses) >= expected, set(losses)
    for name, loss in losses.items():
        value = sum(part.asscalar() for part in loss)
        assert np.isfinite(value) and value != 0, name
    moved = {name for name, value in before.items() if not np.array_equal(value, named[name].data().asnumpy())}
    assert "features.0.weight" not in moved and not any("gamma" in name or "running" in name for name in moved)
    assert {"features.6.0.conv1.weight", "rpn.score.weight", "class_predictor.weight"} <= moved
    for name in moved:
        named[name].set_data(mx.nd.array(before[name]))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """That of every row; it has taken its own step."""
    recipe = unpublished("faster_rcnn/teacher-resnet101_v1d")
    detector = build_teacher(recipe, class_names(recipe.data))
    networks = Networks(detector, family(recipe.detector).detection_loss(recipe))
    one_step(recipe, "teacher", networks, tmp_path_factory.mktemp("images"))
    detector.extractor.freeze()
    return detector


@pytest.fixture(scope="module")
def student(teacher: Detector) -> Callable[[str, Recipe], Networks]:
    """student(head, recipe): on the teacher's head or its own, each built once, with the recipe's kind of regions."""

    @functools.cache
    def built(head: str) -> Networks:
        recipe = unpublished("faster_rcnn/resnet50_v1b-resnet101_v1d", f"distill.head={head}")
        networks = build_student(recipe, class_names(recipe.data), "distilled", teacher, ["backbone"])
        assert networks.bridge is None and networks.detector.adapters is None  # 1024 channels on both sides
        return networks

    def on(head: str, recipe: Recipe) -> Networks:
        networks = built(head)
        networks.detector.head.config = recipe.faster_rcnn  # RoIAlign and RoIPool have the same layers
        return networks

    return on


@pytest.mark.slow
def test_the_teacher_takes_a_step(teacher: Detector) -> None:
    assert teacher.extractor.channels == [1024]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_a_baseline_takes_a_step(name: str, student: Callable[[str, Recipe], Networks], tmp_path: Path) -> None:
    recipe = unpublished(name)
    own = student("own", recipe)
    one_step(recipe, "baseline", Networks(own.detector, own.loss), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TAUGHT)
def test_a_distilled_student_takes_a_step(
    name: str, student: Callable[[str, Recipe], Networks], tmp_path: Path
) -> None:
    recipe = unpublished(name)
    stage = "imitation" if "fgfi" in name else "adversarial"
    one_step(recipe, stage, student(recipe.distill.head, recipe), tmp_path)


@pytest.mark.parametrize("name", ALONE)
def test_the_baseline_alone_is_the_one_beside_the_distilled_student(name: str) -> None:
    alone = RECIPES[name]
    beside = next(RECIPES[other] for other in TAUGHT if other.startswith(f"{name}-resnet101_v1d"))
    assert (alone.data, alone.student, alone.eval, alone.train) == (
        beside.data, beside.student, beside.eval, beside.train
    )  # fmt: skip
    assert alone.faster_rcnn == beside.faster_rcnn
    assert alone.stages == {key: stage for key, stage in beside.stages.items() if stage.trains == "baseline"}
