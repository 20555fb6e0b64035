"""Two distributed workers against one process, step by step: `python scripts/parity_workers.py` prints the differences.

Student and critic, each with its own Trainer, a warm-up of the critic, and learning rates that fall to a tenth halfway.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gan_kd import compat  # noqa: F401  (before MXNet, which `_steps` imports)
from gan_kd.distributed.launch import Host, Job

STEPS = 4
_SIZE = 128  # px
#: Of a small Faster R-CNN.
_REGIONS: dict[str, Any] = {
    "scales": [1.0, 2.0, 4.0], "border": None, "roi_size": 3, "rpn_channels": 16, "min_size": 4, "train_proposals": 60,
    "samples": 16, "frozen": "statistics",
}  # fmt: skip


class Setup(NamedTuple):
    """What is compared with two workers of one device each."""

    #: Devices of the one process.
    contexts: int
    #: Images in the whole batch.
    batch: int
    #: distill.gan.slopes.
    slopes: str = "raw"
    detector: str = "ssd"

    def __str__(self) -> str:
        devices = "one context with the whole batch" if self.contexts == 1 else f"{self.contexts} contexts"
        family = "" if self.detector == "ssd" else f", {self.detector}"
        return f"2 workers - {devices}, {self.batch} images, {self.slopes} slopes{family}"

    @property
    def optimizer(self) -> tuple[str, float]:
        """Name and learning rate.

        Against one context rounding differs, and both a sign, as Adam's first step is, and BatchNorm over the few cells
        of the last maps magnify it, more after every step: SGD with small ones.
        """
        return ("adam", 1e-3) if self.contexts == 2 else ("sgd", 1e-5)


#: BatchNorm has its statistics by device, so two contexts do what two workers do; one context does where both halves
#: of a batch hold the same images, and other targets.
SETUPS = (
    Setup(2, 8),
    Setup(2, 7, "unit"),
    Setup(4, 16),
    Setup(1, 16),
    *(Setup(2, 5, "unit", family) for family in ("faster_rcnn", "yolo3", "gfl")),
)


def rows() -> list[tuple[str, float, float]]:
    """(what, maximal difference of a loss, of a trained parameter after the last step) of each setup.

    Starts two workers and a server, then one process, on this machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder, "one.npz"), Path(folder, "two.npz")
        command = [sys.executable, __file__]
        Job([Host(None, "127.0.0.1")], 2, 1, [*command, str(two)], "the same command").run()
        subprocess.run([*command, str(one)], check=True)
        with np.load(one) as alone, np.load(two) as shared:
            return [(str(setup), *_differences(alone, shared, f"{number}/")) for number, setup in enumerate(SETUPS)]


def _differences(one: np.lib.npyio.NpzFile, two: np.lib.npyio.NpzFile, prefix: str) -> tuple[float, float]:
    found = {"loss": 0.0, "parameter": 0.0}
    for name in one.files:
        if name.startswith(prefix):
            kind = name.split("/")[1]
            found[kind] = max(found[kind], float(np.abs(one[name] - two[name]).max()))
    return found["loss"], found["parameter"]


def main(file: Path) -> None:
    """Take the steps of every setup, as one of two workers or alone, and write what came of it."""
    from gan_kd.distributed.cluster import here

    with here().joined():
        found = {
            f"{number}/{key}": array for number, setup in enumerate(SETUPS) for key, array in _steps(setup).items()
        }
        if here().first:
            np.savez(file, **found)


def _steps(setup: Setup) -> dict[str, np.ndarray]:
    """Losses of every step, summed over devices and workers, and the parameters after the last."""
    import mxnet as mx

    from gan_kd.data.batch import TrainBatch
    from gan_kd.distill.gan import GanDistiller
    from gan_kd.distributed.cluster import here
    from gan_kd.gluon.optim import Optimisation, Position
    from gan_kd.recipe import Data, Distill, Gan, Gfl, Optimizer, Recipe, Schedule, Stage, Student, Teacher
    from gan_kd.recipe.families import FAMILIES
    from gan_kd.recipe.faster_rcnn import FasterRCNN
    from gan_kd.recipe.yolo3 import Yolo3
    from gan_kd.training import networks as build
    from gan_kd.training.distillers import build_distillers
    from gan_kd.training.step import Step

    optimizer, schedule = Optimizer(*setup.optimizer), Schedule(at=[0.5])
    places = [FAMILIES[setup.detector].places[0]]
    gan = Gan(width=8, slopes=setup.slopes, optimizer=optimizer, schedule=schedule)
    recipe = Recipe(
        name="parity",
        detector=setup.detector,
        data=Data(size=_SIZE),
        teacher=Teacher("mobilenet0.5", "random"),
        student=Student("mobilenet0.25", "random"),
        distill=Distill(places=places, gan=gan),
        faster_rcnn=FasterRCNN(**_REGIONS),
        yolo3=Yolo3(teacher_filters=[32, 16, 8], student_filters=[16, 8, 8]),
        gfl=Gfl(width=16, convolutions=1, groups=4),
    )
    methods = ["gan", "cosine_attention", *(["localization"] if setup.detector == "gfl" else [])]
    stage = Stage("distilled", 1, optimizer, schedule, methods)
    contexts = [mx.cpu(device) for device in range(max(1, setup.contexts // here().size))]
    teacher = build.build_teacher(recipe, ["circle", "square"])
    teacher.extractor.freeze()
    networks = build.build_student(recipe, ["circle", "square"], "distilled", teacher, places)
    networks.move(contexts)
    optimisation = Optimisation(networks.parameters(), optimizer, schedule, contexts)
    distillers = build_distillers(recipe, stage, networks, contexts)
    assert isinstance(distillers[0], GanDistiller)
    step = Step(networks, distillers, optimisation, contexts)
    found: dict[str, np.ndarray] = {}
    for done in range(STEPS):
        arrays = (
            _anchors(setup, networks.detector, done) if setup.detector == "ssd" else _DRAWN[setup.detector](setup, done)
        )
        images, truth, extents, *targets = (np.array_split(array, here().size)[here().rank] for array in arrays)
        own = TrainBatch(images, truth, tuple(targets), extents)
        losses = (step if done else step.warm_up)(own, Position(done, STEPS, 1))
        shares = [sum(float(part.asscalar()) for part in parts) for parts in losses.values()]
        found[f"loss/{done}"] = np.array(here().total(shares))
    for part, parameters in (("student", networks.parameters()), ("critic", distillers[0].dnet.collect_params())):
        trained = [parameter for parameter in parameters.values() if parameter.grad_req != "null"]
        for number, parameter in enumerate(trained):
            found[f"parameter/{part}/{number}"] = parameter.list_data()[0].asnumpy()
    return found


def _anchors(setup: Setup, detector: Any, seed: int) -> list[np.ndarray]:
    """Images, no objects, extents, class and box targets of an SSD's anchors, drawn from a seed."""
    rng = np.random.default_rng(seed)
    images, truth, extents = _images(setup, rng)
    if setup.contexts == 1:
        images = np.tile(images[: setup.batch // 2], (2, 1, 1, 1))
    anchors = len(detector.head.anchors(detector.extractor.sizes))
    targets = np.where(rng.random((setup.batch, anchors)) < 0.05, 1.0, 0.0).astype("float32")
    return [images, truth, extents, targets, rng.standard_normal((setup.batch, anchors, 4)).astype("float32")]


def _regions(setup: Setup, seed: int) -> list[np.ndarray]:
    """Images, an object in each, extents, and a Faster R-CNN's targets and draws, from a seed."""
    from gan_kd.detectors.faster_rcnn.targets import RPNTargets

    rng = np.random.default_rng(seed)
    images, truth, extents = _objects(setup, rng)
    targets = RPNTargets(_REGIONS["scales"], border=np.inf, samples=32)
    labels, offsets = zip(*[targets(rows[:, :4], (_SIZE, _SIZE), rng) for rows in truth])
    draws = rng.random((setup.batch, _REGIONS["train_proposals"] + 1), "float32")
    return [images, truth, extents, np.stack(labels), np.stack(offsets), draws]


def _cells(setup: Setup, seed: int) -> list[np.ndarray]:
    """Images, an object in each, extents, and a YOLOv3's targets, from a seed."""
    from gan_kd.detectors.yolo3.targets import YOLO3Targets

    images, truth, extents = _objects(setup, np.random.default_rng(seed))
    targets = YOLO3Targets(_SIZE)
    return [images, truth, extents, np.stack([targets(rows[:, :4], rows[:, 4], np.ones(len(rows))) for rows in truth])]


def _priors(setup: Setup, seed: int) -> list[np.ndarray]:
    """Images, an object in each, extents, the object of each of a GFL's priors and the objects' thresholds."""
    from gan_kd.detectors.gfl import priors
    from gan_kd.detectors.gfl.targets import assign

    images, truth, extents = _objects(setup, np.random.default_rng(seed))
    made = priors.make(priors.shapes(_SIZE, _SIZE))
    objects, thresholds = zip(*[assign(made, rows[:, :4]) for rows in truth])
    return [images, truth, extents, np.stack(objects), np.stack(thresholds)]


_DRAWN = {"faster_rcnn": _regions, "yolo3": _cells, "gfl": _priors}


def _objects(setup: Setup, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_images` with an object in each."""
    images, truth, extents = _images(setup, rng)
    truth[:, 0, :2] = rng.uniform(0, _SIZE / 2, (setup.batch, 2))
    truth[:, 0, 2:4] = truth[:, 0, :2] + rng.uniform(_SIZE / 8, _SIZE / 2, (setup.batch, 2))
    truth[:, 0, 4] = rng.integers(2, size=setup.batch)
    return images, truth, extents


def _images(setup: Setup, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise, one row for an object that is not there, and extents of the whole input."""
    images = rng.standard_normal((setup.batch, 3, _SIZE, _SIZE)).astype("float32")
    return images, np.full((setup.batch, 1, 5), -1, "float32"), np.full((setup.batch, 2), _SIZE, "float32")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        for what, loss, parameter in rows():
            print(f"{what}: losses {loss:.2g}, parameters {parameter:.2g}")
