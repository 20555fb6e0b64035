"""The adversarial step against the sum of its parts, and against the algorithm written down line by line.

The parts are what no implementation can do without, each on inputs that are given, timed alone and added up:

- student: forward, SSD loss, backward, Adam (with adapters and head);
- teacher: forward;
- critic: scores of real and fake maps, their gradient for D's weights, Adam, clamp;
- adversary: D has changed, so the student's maps are scored anew, and the scores' gradient for the maps.
"""

from __future__ import annotations

from collections.abc import Callable

import mxnet as mx
import numpy as np
from mxnet import autograd, nd

from gan_kd.data.batch import TrainBatch
from gan_kd.detectors.ssd.loss import MultiBoxLoss, positives_scale
from gan_kd.distill.base import Seen
from gan_kd.distill.discriminator import DNet
from gan_kd.distill.gan import GanDistiller
from gan_kd.gluon import macs
from gan_kd.gluon.optim import Optimisation, Position
from gan_kd.recipe import Data, Distill, Gan, Optimizer, Recipe, Stage, Student, Teacher
from gan_kd.system.timing import Result, in_turn, ratios
from gan_kd.training.distillers import build_distillers
from gan_kd.training.networks import Networks, build_student, build_teacher
from gan_kd.training.step import Step

CLASSES = [f"class{number}" for number in range(20)]  # as many as VOC has
HERE = Position(0, 1, 1)
CPU = mx.cpu(0)


def run(rounds: int) -> list[Result]:
    """step_over_parts and literal_over_step at the paper's shapes."""
    return measure(rounds)


def measure(
    rounds: int,
    student: str = "mobilenet1.0",
    teacher: str = "resnet50_v1",
    size: int = 512,
    batch: int = 2,
    width: int = 512,
) -> list[Result]:
    """Both ratios for SSDs of these backbones on `batch` images of `size` px, D-Net `width` channels wide."""
    ours, rival = (_Setting(student, teacher, size, width) for _ in range(2))
    samples = random_batch(
        batch, size, len(ours.networks.detector.head.anchors(ours.networks.detector.extractor.sizes))
    )
    parts = _parts(ours, samples)
    seconds = in_turn(
        {
            **parts,
            "step": _waiting(lambda: ours.step(samples, HERE)),
            "literal": _waiting(lambda: literal_step(rival, samples)),
        },
        rounds,
    )
    sums = [sum(each) for each in zip(*[seconds[name] for name in parts])]
    details = {f"{name}, s": float(np.median(each)) for name, each in seconds.items()}
    what = f"SSD{size} {student} <- {teacher}, D-Net of {width} channels, batch {batch}"
    return [
        Result(
            "step_over_parts",
            f"Adversarial step by the sum of its parts: {what}.",
            ratios(seconds["step"], sums),
            1.05,
            at_least=False,
            details={
                **details,
                **costs(ours.networks),
                "step by the student's part alone": details["step, s"] / details["student, s"],
            },
            notes=[
                "GMAC: billions of multiply-accumulates of a forward pass on one image. A step needs D-Net's six times "
                "(scores of real and fake, D's gradients of both, scores of the fake by the new D, the maps' gradient) "
                "and those between D-Net's layers twice more.",
            ],
        ),
        Result(
            "literal_over_step",
            f"The algorithm line by line by our step: {what}.",
            ratios(seconds["literal"], seconds["step"]),
            1.4,
            details=details,
        ),
    ]


class _Setting:
    """Networks of a distilled student with what trains them, from the same draw each time."""

    def __init__(self, student: str, teacher: str, size: int, width: int) -> None:
        adam = Optimizer("adam", 5e-4, beta1=0.5, wd=0.0)
        recipe = Recipe(
            name="benchmark",
            data=Data(size=size),
            teacher=Teacher(teacher, "random"),
            student=Student(student, "random"),
            distill=Distill(gan=Gan(width=width)),
        )
        stage = Stage("distilled", 1, adam, distillers=["gan"])
        source = build_teacher(recipe, CLASSES)
        source.extractor.freeze()
        self.networks = build_student(recipe, CLASSES, "distilled", source)
        self.networks.hybridize()
        self.optimisation = Optimisation(self.networks.parameters(), adam, stage.schedule, [CPU])
        (gan,) = build_distillers(recipe, stage, self.networks, [CPU])
        assert isinstance(gan, GanDistiller)
        self.gan = gan
        self.step = Step(self.networks, [gan], self.optimisation, [CPU])
        self.loss = MultiBoxLoss()
        self.loss.hybridize(static_alloc=True, static_shape=True)

    def student_maps(self, images: nd.NDArray) -> list[nd.NDArray]:
        detector = self.networks.detector
        maps = detector.extractor(images)
        return maps if detector.adapters is None else detector.adapters(*maps)

    def teacher_maps(self, images: nd.NDArray) -> list[nd.NDArray]:
        assert self.networks.teacher is not None
        return self.networks.teacher(images)


def random_batch(count: int, size: int, anchors: int) -> TrainBatch:
    """A batch of noise in which every hundredth anchor is a positive one."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, 3, size, size), "float32")
    classes = np.where(rng.random((count, anchors)) < 0.01, rng.integers(1, 21, (count, anchors)), 0)
    targets = classes.astype("float32"), rng.standard_normal((count, anchors, 4), "float32")
    return TrainBatch(images, np.full((count, 1, 5), -1, np.float32), targets)


def costs(networks: Networks) -> dict[str, float]:
    """Billions of multiply-accumulates of a forward pass on one image, of each part."""
    teacher, detector = networks.teacher, networks.detector
    assert teacher is not None
    image = (1, 3, teacher.size, teacher.size)
    found = {
        "student's extractor, GMAC": macs.count(detector.extractor, image)[1],
        "student with adapters and head, GMAC": macs.count(detector, image)[1],
        "teacher's extractor, GMAC": macs.count(teacher, image)[1],
    }
    for width in (512, 128):
        shapes = list(zip(teacher.channels, teacher.sizes))
        critics = DNet(teacher.channels, teacher.sizes, width).discriminators
        each = [macs.count(critic, (1, depth, side, side))[1] for critic, (depth, side) in zip(critics, shapes)]
        found[f"D-Net of {width} channels, GMAC"] = sum(each)
    return {name: count / 1e9 for name, count in found.items()}


def literal_step(setting: _Setting, batch: TrainBatch) -> None:
    """The algorithm as one writes it down: what a step needs is computed in that step, and L_D is left to reach S.

    Networks, optimisers and hybridisation are those of our step. Teacher and student run for D's step and again for
    the student's (L_G has no term of the teacher; the algorithm's loop runs both), D scores real and fake maps in a
    pass each, and gradients flow to every weight that they reach.
    """
    images, classes, boxes = map(nd.array, (batch.images, *batch.targets))
    scale = nd.array([positives_scale(batch.targets[0])])
    dnet, count = setting.gan.dnet, len(batch.images)

    teacher = setting.teacher_maps(images)
    with autograd.record():
        student = setting.student_maps(images)
        critic = (_sum(dnet(*teacher)) - _sum(dnet(*student))) / count
    critic.backward()
    setting.gan.optimisation.step(HERE)
    setting.gan.clamp()

    setting.teacher_maps(images)
    with autograd.record():
        student = setting.student_maps(images)
        predictions = setting.networks.detector.head(*student)
        loss = nd.add_n(*setting.loss(*predictions, classes, boxes, scale), _sum(dnet(*student)) / count)
    loss.backward()
    setting.optimisation.step(HERE)


def _parts(setting: _Setting, batch: TrainBatch) -> dict[str, Callable[[], None]]:
    """By name, what the module's docstring lists."""
    images = nd.array(batch.images)
    plain = Step(setting.networks, [], setting.optimisation, [CPU])
    real = setting.teacher_maps(images)
    fake = setting.student_maps(images)
    for m in fake:
        m.attach_grad()

    def adversary() -> None:
        with autograd.record():
            (loss,) = setting.gan.losses(Seen(real, fake), len(images)).values()
        loss.backward()

    return {
        "student": _waiting(lambda: plain(batch, HERE)),
        "teacher": _waiting(lambda: setting.teacher_maps(images)),
        "critic": _waiting(lambda: setting.gan.update([Seen(real, fake)], len(images), HERE)),
        "adversary": _waiting(adversary),
    }


def _waiting(thing: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        thing()
        nd.waitall()

    return call


def _sum(scores: list[nd.NDArray]) -> nd.NDArray:
    return nd.add_n(*[nd.sum(score) for score in scores])
