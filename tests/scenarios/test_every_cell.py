"""Every cell of tables 1 and 2, and every teacher that is trained here: its networks at their real size take a step."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import Block

from gan_kd.data.batch import TrainBatch
from gan_kd.data.dataset import class_names
from gan_kd.detectors.base import Detector
from gan_kd.detectors.saved import describe, save_detector
from gan_kd.detectors.ssd.loss import SSDLoss
from gan_kd.detectors.ssd.transform import SSDTrainTransform
from gan_kd.distill.base import Distiller
from gan_kd.distill.fine_grained import FineGrained
from gan_kd.distill.gan import GanDistiller
from gan_kd.gluon.optim import Optimisation, Position
from gan_kd.recipe import Recipe, load, names
from gan_kd.training.distillers import build_distillers
from gan_kd.training.networks import Networks, build_student, build_teacher, head_in_words
from gan_kd.training.step import Step
from tests.rig import marks

CPU = [mx.cpu(0)]
RECIPES = {name: recipe for name, recipe in ((name, load(name)) for name in names()) if recipe.detector == "ssd"}
TEACHERS = [name for name in RECIPES if "/teacher-" in name]
ALONE = [name for name, recipe in RECIPES.items() if recipe.published and recipe.published.column == "none"]
TAUGHT = [name for name, recipe in RECIPES.items() if recipe.published and recipe.published.column != "none"]
IMITATING = [name for name in RECIPES if name.startswith("voc/") and name.endswith("-fine_grained")]
#: Which head the distilled student has, by the recipe of its teacher: the teacher's where it has the same anchors.
LENT, OWN = "inherited, the teacher's weights and anchors", "its own, the teacher's is for other maps or anchors"
HEADS = {
    "voc/teacher-resnet50_v1": LENT,
    "voc/teacher-resnet101_v2": LENT,
    "voc/teacher-vgg16_atrous": OWN,
    "coco/teacher-resnet50_v1": OWN,
}


@pytest.fixture(autouse=True)
def freed() -> Iterator[None]:
    """Gives a test's memory back: Gluon's blocks refer to each other, and the allocator keeps what is free."""
    yield
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def test_each_zoo_teacher_can_be_trained_here() -> None:
    assert {teacher_of(RECIPES[name]) for name in TAUGHT} == set(TEACHERS)


@pytest.mark.parametrize("name", ALONE)
def test_the_baseline_alone_is_the_one_beside_the_distilled_student(name: str) -> None:
    alone = RECIPES[name]
    beside = [RECIPES[other] for other in TAUGHT if other.startswith(f"{name}-")]
    assert beside
    for recipe in beside:
        assert (alone.data, alone.student, alone.eval) == (recipe.data, recipe.student, recipe.eval)
        assert alone.train == recipe.train
        assert alone.stages == {key: stage for key, stage in recipe.stages.items() if stage.trains == "baseline"}


def test_the_teachers_head_would_bring_other_anchors_on_coco() -> None:
    recipe = unpublished("coco/mobilenet1.0-resnet50_v1", "teacher.weights=null", "distill.head=inherit")
    classes = class_names(recipe.data)
    teacher = build_teacher(recipe, classes)
    baseline = build_student(recipe, classes, "baseline", teacher).detector
    distilled = build_student(recipe, classes, "distilled", teacher).detector
    own, lent, others = (net.head.anchors(net.extractor.sizes) for net in (baseline, distilled, teacher))
    assert np.array_equal(lent, others) and not np.array_equal(lent, own)


def teacher_of(recipe: Recipe) -> str:
    """Name of the recipe that trains the teacher of another."""
    return f"{recipe.data.dataset}/teacher-{recipe.teacher.backbone}"


def unpublished(name: str, *overrides: str) -> Recipe:
    """A shipped recipe for this machine: from random weights, on the CPU."""
    start = ["teacher.init=random", "student.init=random", "train.contexts=['cpu:0']", "train.batch_size=1"]
    return load(name, [*start, *overrides])


def drawn_batch(detector: Detector, size: int, classes: int, distillers: Sequence[Distiller]) -> TrainBatch:
    """One drawn image with objects for the anchors of every map, and the targets that the loader would make of it."""
    rng = np.random.default_rng(0)
    image, rows = rng.integers(0, 80, (size, size, 3), dtype=np.uint8), []
    for side in (500, 420, 340, 260, 150, 60):
        image[-side:, :side] = rng.integers(80, 256, 3)
        rows.append([0, size - side, side - 1, size - 1, rng.integers(classes), 0])
    anchors = detector.head.anchors(detector.extractor.sizes)
    pixels, *targets = SSDTrainTransform(size, anchors, "flip")(image, np.array(rows, np.float32), rng)
    truth = np.array([rows], np.float32)[..., :5]
    regions = tuple(marks(method.regions, list(truth), size) for method in distillers if method.regions is not None)
    return TrainBatch(pixels[None], truth, tuple(part[None] for part in targets), regions=regions)


def values(block: Block) -> dict[str, np.ndarray]:
    return {name: parameter.data().asnumpy() for name, parameter in block.collect_params().items()}


def one_step(recipe: Recipe, stage: str, networks: Networks) -> None:
    """A real training step: the losses are finite, all that is trained moves, the teacher does not."""
    plan, detector = recipe.stages[stage], networks.detector
    optimizer = dataclasses.replace(plan.optimizer, wd=0.0)  # weight decay moves what has no gradient, too
    distillers = build_distillers(recipe, plan, networks, CPU)
    optimisation = Optimisation(networks.parameters(distillers), optimizer, plan.schedule, CPU)
    parts: dict[str, Any] = {"extractor": detector.extractor, "head": detector.head, "adapters": detector.adapters}
    parts["bridge"] = networks.bridge if any(name.startswith("bridge.") for name in optimisation.names) else None
    parts |= {f"D{i}": gan.dnet for i, gan in enumerate(distillers) if isinstance(gan, GanDistiller)}
    parts["layers"] = next((method.layers for method in distillers if isinstance(method, FineGrained)), None)
    assert ("D0" in parts) is (stage == "adversarial")
    trained = {name: block for name, block in parts.items() if block is not None and block.collect_params()}
    before = {name: values(block) for name, block in trained.items()}
    frozen = values(networks.teacher) if networks.teacher is not None else {}

    batch = drawn_batch(detector, recipe.data.size, len(detector.head.classes), distillers)
    beyond = sum(not mask.any() for marked in batch.regions for mask in marked)  # maps for which no object is made
    allowed = {"extractor": 2, "head": 2, "layers": 1 + beyond}
    losses = Step(networks, distillers, optimisation, CPU)(batch, Position(0, 10, plan.epochs))
    for name, loss in losses.items():
        assert np.isfinite(sum(part.asscalar() for part in loss)), name
    for name, block in trained.items():
        weights = [key for key in before[name] if key.endswith("weight")]
        after = values(block)
        still = [key for key in weights if np.array_equal(before[name][key], after[key])]
        # BatchNorm makes a constant of the last map, one cell of one image: the layers around it have no gradient.
        assert len(weights) >= 2 and len(still) <= allowed.get(name, 0), (name, still)
    if networks.teacher is not None:
        after = values(networks.teacher)
        assert all(np.array_equal(frozen[key], after[key]) for key in frozen)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Detector]:
    """The teacher of a recipe, trained by it for one step, saved, and read as teacher.weights; each once."""
    folder = tmp_path_factory.mktemp("teachers")

    @functools.cache
    def teacher(name: str) -> Detector:
        recipe = unpublished(name)
        classes = class_names(recipe.data)
        networks = Networks(build_teacher(recipe, classes), SSDLoss())
        one_step(recipe, "teacher", networks)
        path = folder / name / "best.params"
        save_detector(networks.detector, path, describe(recipe, "teacher", networks.detector))
        learnt_from = next(other for other in TAUGHT if teacher_of(RECIPES[other]) == name)
        found = build_teacher(unpublished(learnt_from, f"teacher.weights={path}"), classes)
        found.extractor.freeze()
        return found

    return teacher


@pytest.mark.slow
@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_takes_a_step(name: str, teachers: Callable[[str], Detector]) -> None:
    assert teachers(name).extractor.channels


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_a_baseline_takes_a_step(name: str) -> None:
    recipe = unpublished(name)
    one_step(recipe, "baseline", build_student(recipe, class_names(recipe.data), "baseline", None))


@pytest.mark.slow
@pytest.mark.parametrize("name", TAUGHT)
def test_a_distilled_student_takes_an_adversarial_step(name: str, teachers: Callable[[str], Detector]) -> None:
    recipe, source = unpublished(name), teacher_of(RECIPES[name])
    teacher = teachers(source)
    networks = build_student(recipe, class_names(recipe.data), "distilled", teacher)
    assert (recipe.data.size, recipe.distill.gan.width, len(networks.pairs)) == (512, 512, 6)
    assert head_in_words(recipe, "distilled", networks.detector, teacher).endswith(f": {HEADS[source]}")
    assert (networks.bridge is None) == (HEADS[source] == LENT)
    one_step(recipe, "adversarial", networks)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMITATING)
def test_a_student_takes_a_step_of_fine_grained_imitation(name: str, teachers: Callable[[str], Detector]) -> None:
    recipe = unpublished(name, "distill.fine_grained.quiet=0")
    teacher = teachers(teacher_of(RECIPES[name]))
    networks = build_student(recipe, class_names(recipe.data), "distilled", teacher)
    assert (recipe.data.size, recipe.published, len(networks.pairs)) == (512, None, 6)
    assert networks.detector.adapters is None  # its own head, nothing beside the student is deployed
    one_step(recipe, "imitation", networks)


def test_every_pair_has_a_recipe_of_fine_grained_imitation() -> None:
    pairs = {(RECIPES[name].student, RECIPES[name].teacher) for name in TAUGHT if name.startswith("voc/")}
    assert {(RECIPES[name].student, RECIPES[name].teacher) for name in IMITATING} == pairs
    assert len(IMITATING) == len(pairs) == 9
    for name in IMITATING:
        beside = RECIPES[name.removesuffix("-fine_grained")]
        assert (RECIPES[name].data, RECIPES[name].train, RECIPES[name].eval) == (beside.data, beside.train, beside.eval)
