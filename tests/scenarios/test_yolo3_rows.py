"""Every row of YOLOv3 on VOC07+12 and COCO: its networks at 416 px take a step.

A step with every distiller of a method at every place holds the steps of that method's other rows, whose maps and
distillers are some of its own; rows of COCO differ from VOC's in the head alone. One pair is built for all: the
teacher's maps of the one image are calculated once, and the student's weights are put back after each step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
import pytest

from gan_kd.data.batch import TrainBatch
from gan_kd.data.dataset import class_names
from gan_kd.detectors.adapters import pair_maps
from gan_kd.detectors.base import Detector, Maps
from gan_kd.detectors.families import family
from gan_kd.detectors.yolo3.targets import YOLO3Targets
from gan_kd.distill.base import Distiller
from gan_kd.gluon.optim import Optimisation, Position
from gan_kd.recipe import Recipe, load, names
from gan_kd.training.distillers import build_distillers, compared_places
from gan_kd.training.networks import Networks, build_student, build_teacher, head_in_words
from gan_kd.training.step import Step
from tests.rig import marks

CPU = [mx.cpu(0)]
SIZE = 416
RECIPES = {name: load(name) for name in names() if name.startswith(("yolo3/voc-", "yolo3/coco-"))}
TAUGHT = [name for name, recipe in RECIPES.items() if recipe.trains("distilled")]
METHODS = ("gan", "gan-cosine", "fine_grained", "information_map")
PLACES = {"backbone": ["backbone"], "neck": ["neck"], "both": ["backbone", "neck"]}
#: Rows that hold the others.
STEPS = (
    "yolo3/voc-mobilenet1.0",
    "yolo3/voc-mobilenet1.0-darknet53-gan-cosine-both",
    "yolo3/voc-mobilenet1.0-darknet53-fine_grained-both",
    "yolo3/voc-mobilenet1.0-darknet53-information_map",
    "yolo3/coco-mobilenet1.0",
)
OBJECTS = np.array([[20, 30, 220, 380], [250, 100, 330, 190], [350, 350, 380, 395]], np.float32)


def unpublished(name: str) -> Recipe:
    """A shipped recipe for this machine: from random weights, on the CPU."""
    start = ["student.init=random", "train.contexts=['cpu:0']", "train.batch_size=1", "yolo3.sides=[]"]
    recipe = load(name, start)
    return dataclasses.replace(recipe, teacher=dataclasses.replace(recipe.teacher, weights=None, init="random"))


class Remembered:
    """A frozen extractor that knows its maps of one image."""

    def __init__(self, detector: Detector, images: np.ndarray) -> None:
        self.levels, self.to_head = detector.extractor.levels, detector.extractor.to_head
        self.maps: Maps = detector.extractor(mx.nd.array(images))

    def __call__(self, images: mx.nd.NDArray) -> Maps:
        return self.maps


class Pair(NamedTuple):
    teacher: Detector
    remembered: Remembered
    students: dict[str, Detector]  # by data set
    images: np.ndarray


@pytest.fixture(scope="module")
def pair() -> Pair:
    recipe = unpublished("yolo3/voc-mobilenet1.0-darknet53-gan-both")
    classes, of = class_names(recipe.data), family("yolo3")
    teacher = build_teacher(recipe, classes)
    teacher.extractor.freeze()
    student = build_student(recipe, classes, "distilled", teacher).detector
    assert head_in_words(recipe, "distilled", student, teacher).endswith(
        "anchors; neck: inherited, the teacher's weights"
    )
    given = teacher.weights()
    for name, parameter in student.weights().items():
        if not name.startswith("stages."):
            assert parameter is not given[name], "trained further, the teacher is not"
            assert np.array_equal(parameter.data().asnumpy(), given[name].data().asnumpy()), name
    coco = unpublished("yolo3/coco-mobilenet1.0")
    about = {
        "backbone": "mobilenet1.0",
        "size": SIZE,
        "classes": class_names(coco.data),
        **of.about(coco, coco.student),
    }
    parts = student.parts()._replace(head=of.head_for(None, about)[0])
    images = np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
    students = {"voc": student, "coco": of.join(parts, None, coco.eval)}
    return Pair(teacher, Remembered(teacher, images), students, images)


def batch(images: np.ndarray, distillers: Sequence[Distiller]) -> TrainBatch:
    """One image with its objects, and what the loader would make of them."""
    truth = np.concatenate([OBJECTS, [[3], [0], [7]]], axis=1, dtype=np.float32)
    regions = tuple(marks(method.regions, [truth], SIZE) for method in distillers if method.regions is not None)
    return TrainBatch(images, truth[None], (YOLO3Targets(SIZE)(OBJECTS, truth[:, 4])[None],), regions=regions)


def step(name: str, pair: Pair) -> None:
    """A real training step: the losses are finite, what is trained moves, the teacher is not touched."""
    recipe = unpublished(name)
    assert recipe.data.size == SIZE
    (plan,) = recipe.stages.values()
    detector, teacher = pair.students[recipe.data.dataset], pair.teacher
    networks = Networks(detector, family("yolo3").detection_loss(recipe))
    if plan.trains == "distilled":
        remembered: Any = pair.remembered
        pairs = pair_maps(detector.extractor, teacher.extractor, compared_places(recipe, "distilled"))
        channels = [(detector.extractor.channels[s], teacher.extractor.channels[t]) for s, t in pairs]
        assert all(own == other for own, other in channels), "no adapter anywhere"
        networks = dataclasses.replace(networks, teacher=remembered, pairs=pairs)
    distillers = build_distillers(recipe, plan, networks, CPU)
    moved = networks.parameters(distillers)
    optimisation = Optimisation(moved, plan.optimizer, plan.schedule, CPU)
    before = {key: parameter.data().copy() for key, parameter in detector.weights().items()}
    own = {key: parameter.data().copy() for key, parameter in moved.items() if key not in before}
    losses = Step(networks, distillers, optimisation, CPU)(batch(pair.images, distillers), Position(4000, 9000, 200))
    expected = {"obj", "center", "scale", "cls"}
    for distiller in plan.distillers:
        expected |= {"adversarial", "critic"} if distiller == "gan" else {distiller}
    assert expected <= set(losses)
    for key, parts in losses.items():
        assert all(np.isfinite(part.asscalar()) for part in parts), key
    for key, values in own.items():
        assert not np.array_equal(moved[key].data().asnumpy(), values.asnumpy()), key
    for key in ("stages.0.0.weight", "yolo_blocks.0.body.0.0.weight", "yolo_outputs.2.prediction.weight"):
        assert not np.array_equal(moved[key].data().asnumpy(), before[key].asnumpy()), key
    for key, parameter in detector.weights().items():
        if parameter.grad_req != "null":
            parameter.set_data(before[key])


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_row_takes_a_step(name: str, pair: Pair) -> None:
    step(name, pair)


@pytest.mark.parametrize("name", RECIPES)
def test_a_row_is_part_of_one_that_takes_a_step(name: str) -> None:
    recipe = RECIPES[name]
    (stage,) = recipe.stages.values()
    for whole in (RECIPES[row] for row in STEPS):
        (largest,) = whole.stages.values()
        methods = {*stage.distillers} <= {*largest.distillers}
        places = {*(recipe.distill.places or ())} <= {*(whole.distill.places or ())}
        alike = dataclasses.replace(recipe.distill, places=None) == dataclasses.replace(whole.distill, places=None)
        if methods and ((places and alike) or not stage.distillers):
            return
    raise AssertionError("no step holds this row's")


@pytest.mark.parametrize("data", ["voc", "coco"])
def test_the_rows_are_every_method_at_every_place(data: str) -> None:
    rows = {name: recipe for name, recipe in RECIPES.items() if name.startswith(f"yolo3/{data}-")}
    alone = rows[f"yolo3/{data}-mobilenet1.0"]
    found = []
    for name, recipe in rows.items():
        assert (recipe.data, recipe.train, recipe.eval) == (alone.data, alone.train, alone.eval)
        assert (recipe.yolo3, recipe.teacher, recipe.student) == (alone.yolo3, alone.teacher, alone.student)
        (stage,) = recipe.stages.values()
        (plain,) = alone.stages.values()
        assert (stage.epochs, stage.optimizer, stage.schedule) == (plain.epochs, plain.optimizer, plain.schedule)
        if name in TAUGHT:
            method = name.removeprefix(f"yolo3/{data}-mobilenet1.0-darknet53-")
            place = next((word for word in PLACES if method.endswith(f"-{word}")), None)
            assert place is None or recipe.distill.places == PLACES[place]
            found.append((method.removesuffix(f"-{place}"), tuple(recipe.distill.places or ())))
            inherits = "inherit" if method.startswith("gan") else "own"
            assert recipe.distill.head == recipe.distill.neck == inherits
    assert sorted(found) == sorted((method, tuple(places)) for method in METHODS for places in PLACES.values())


def test_rows_of_both_data_sets_distil_alike() -> None:
    for name in RECIPES:
        other = RECIPES[name.replace("/voc-", "/coco-")]
        assert RECIPES[name].distill == other.distill, name
