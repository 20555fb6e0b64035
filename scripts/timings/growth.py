"""How our training step's speed and memory grow with the batch, the input, the classes, devices and loader workers.

Each point is a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_kd import compat  # noqa: F401  (before MXNet)

BACKBONE = "mobilenet0.25"
#: Of an allreduce between devices, bytes a second: about what PCIe 3 with 16 lanes gives.
BANDWIDTH = 10e9
#: A device's speed in multiples of the cores measured here, as nobody measured one.
ASSUMED_SPEEDS = (1, 50)


@dataclass(frozen=True)
class Setting:
    """A point: what grows, and how large everything is there."""

    grows: str
    batch: int = 8
    size: int = 256
    classes: int = 20
    contexts: tuple[str, ...] = ("cpu:0",)
    #: Processes of the loader; None: the same batch of noise over and over.
    workers: int | None = None


def settings() -> Iterator[Setting]:
    """One series for each thing that grows, all from the same point."""
    yield from (Setting("batch", batch=batch) for batch in (2, 4, 8, 16, 32))
    yield from (Setting("size", size=size) for size in (128, 192, 384, 512))
    yield from (Setting("classes", classes=classes) for classes in (1, 80))
    yield Setting("contexts", contexts=("cpu:0", "cpu:1"))
    yield from (Setting("workers", workers=workers) for workers in (0, 1, 2))


def grow(rounds: int, points: Sequence[Setting] | None = None) -> dict[str, Any]:
    """Measure all points and fit the model: what the page shows, ready for JSON.

    rounds: steps timed at each point, after two that are not, in each of two passes over the points, there and back.
    The fastest step counts: what other work on the machine adds would hide how the step itself grows.
    """
    from scripts.timings.evaluation import test_set

    points = list(points or settings())
    measured: list[dict[str, Any]] = [asdict(point) for point in points]
    with tempfile.TemporaryDirectory() as folder:
        root, split, _ = test_set(Path(folder))
        for index in (*range(len(points)), *reversed(range(len(points)))):
            figures = _in_process(points[index], rounds, root, split)
            if figures["seconds"] <= measured[index].get("seconds", float("inf")):
                measured[index].update(figures)
    fitted = fit(measured)
    return {
        "backbone": BACKBONE,
        "points": measured,
        "fit": fitted,
        "extrapolation": extrapolate(fitted, measured[0]["parameter bytes"]),
    }


def fit(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Least squares over the points of one device without a loader, and the relative residual of each.

    Seconds of a step: a + pixels * (b + c * classes); peak of memory in bytes likewise; pixels: of the batch.
    """
    used = [p for p in points if len(p["contexts"]) == 1 and p["workers"] is None]
    rows = np.array([_terms(p["batch"], p["size"], p["classes"]) for p in used])
    fitted: dict[str, Any] = {}
    for key in ("seconds", "bytes"):
        values = np.array([p[key] for p in used], dtype=np.float64)
        # Relative errors count: else the largest points alone would decide.
        terms = np.linalg.lstsq(rows / values[:, None], np.ones(len(values)), rcond=None)[0]
        fitted[key] = {"terms": terms.tolist(), "residuals": (rows @ terms / values - 1).tolist()}
    fitted["of"] = [{key: p[key] for key in ("grows", "batch", "size", "classes")} for p in used]
    return fitted


def _terms(batch: int, size: int, classes: int) -> tuple[float, float, float]:
    pixels = batch * size**2
    return 1.0, pixels, pixels * classes


def extrapolate(fitted: Mapping[str, Any], parameter_bytes: int) -> list[dict[str, float]]:
    """Data parallel training of 32 images of 512 px and 20 classes a device, by the model: no device was measured.

    A step on n devices takes the seconds of one, divided by the assumed speed, and an allreduce of all gradients:
    2 (n - 1) / n times their bytes over the bandwidth, not overlapped.
    """
    batch, size, classes = 32, 512, 20
    alone = float(np.dot(_terms(batch, size, classes), fitted["seconds"]["terms"]))
    predicted = []
    for speed in ASSUMED_SPEEDS:
        for devices in (1, 2, 8):
            reduce = 2 * (devices - 1) / devices * parameter_bytes / BANDWIDTH
            seconds = alone / speed + reduce
            predicted.append(
                {
                    "assumed speed": speed,
                    "devices": devices,
                    "seconds": seconds,
                    "allreduce seconds": reduce,
                    "images/s": devices * batch / seconds,
                    "efficiency": alone / speed / seconds,
                }
            )
    return predicted


def _in_process(point: Setting, rounds: int, root: Path, split: str) -> dict[str, float]:
    task = json.dumps({**asdict(point), "rounds": rounds, "root": str(root), "split": split})
    command = [sys.executable, "-m", "scripts.timings.growth", task]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    if done.returncode:
        raise RuntimeError(f"the point {point} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(point: Setting, rounds: int, root: Path, split: str) -> dict[str, float]:
    """Seconds of the fastest step of the student alone (no adversary), images/s, peak of resident memory in bytes."""
    import mxnet as mx

    from gan_kd.data.batch import TrainBatch
    from gan_kd.gluon.contexts import open_contexts
    from gan_kd.gluon.optim import Optimisation, Position
    from gan_kd.recipe import Data, Optimizer, Recipe, Schedule, Student
    from gan_kd.training.networks import build_student
    from gan_kd.training.step import Step

    contexts = open_contexts(point.contexts)
    recipe = Recipe("growth", data=Data(size=point.size), student=Student(BACKBONE, "random"))
    networks = build_student(recipe, [f"class {k}" for k in range(point.classes)], "baseline", None)
    networks.detector.collect_params().reset_ctx(contexts)
    networks.hybridize()
    parameters = networks.parameters()
    step = Step(networks, [], Optimisation(parameters, Optimizer(lr=1e-4), Schedule(), contexts), contexts)
    anchors = networks.detector.head.anchors(networks.detector.extractor.sizes)

    def noise() -> Generator[Any, None, None]:
        rng = np.random.default_rng(0)
        batch = TrainBatch(
            rng.standard_normal((point.batch, 3, point.size, point.size), dtype=np.float32),
            np.full((point.batch, 1, 5), -1, np.float32),
            (
                (rng.random((point.batch, len(anchors))) < 0.01).astype(np.float32),
                rng.standard_normal((point.batch, len(anchors), 4), dtype=np.float32),
            ),
        )
        while True:
            yield batch

    source = noise() if point.workers is None else _loaded(point, point.workers, anchors, root, split)
    seconds = []
    for number in range(rounds + 2):
        start = time.perf_counter()
        step(next(source), Position(number, 1000, 1))
        mx.nd.waitall()
        seconds.append(time.perf_counter() - start)
    source.close()
    fastest = min(seconds[2:])
    sizes = [np.prod(p.shape) for p in parameters.values() if p.grad_req != "null"]
    return {
        "seconds": fastest,
        "images/s": point.batch / fastest,
        "bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "parameter bytes": 4 * int(sum(sizes)),
    }


def _loaded(point: Setting, workers: int, anchors: np.ndarray, root: Path, split: str) -> Generator[Any, None, None]:
    """Batches of the loader without end."""
    from gan_kd.data.dataset import DetectionDataset, open_split
    from gan_kd.data.loader import Loader
    from gan_kd.detectors.ssd.transform import SSDTrainTransform
    from gan_kd.recipe import Data

    data = Data(dataset="folder", root=str(root), train=[split], classes="annotations")
    dataset = open_split(data, "train")
    few = DetectionDataset(dataset.classes, dataset.records[: 20 * point.batch])
    with Loader(few, SSDTrainTransform(point.size, anchors), point.batch, workers, seed=0, train=True) as loader:
        epoch = 0
        while True:
            yield from loader.epoch(epoch)
            epoch += 1


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    rounds, root, split = given.pop("rounds"), Path(given.pop("root")), given.pop("split")
    given["contexts"] = tuple(given["contexts"])
    print(json.dumps(measure(Setting(**given), rounds, root, split)))
