"""Whether the training process keeps its size: resident memory over an adversarial training with evaluations in it.

In a process of its own, whose memory nothing else has used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_kd import compat  # noqa: F401  (before MXNet)

STEPS, EVERY, SETTLED = 500, 10, 100  # steps in all, between samples, before the slope begins
EVALUATED = 20  # steps between evaluations: the C library's heap needs some to take its final size
SIZE, BATCH, WORKERS = 128, 8, 2


def measure(steps: int = STEPS, every: int = EVERY, settled: int = SETTLED) -> dict[str, Any]:
    """Resident bytes every so many steps, and what least squares say of those after the first `settled`, for JSON.

    The loss is SSD's, the adversary's and cosine attention's; after every `EVALUATED` steps the student is evaluated.
    """
    command = [sys.executable, "-m", "scripts.timings.memory", json.dumps([steps, every])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    if done.returncode:
        raise RuntimeError(f"the training failed:\n{done.stderr}")
    samples: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return {**samples, "settled": settled, "evaluated": EVALUATED, **fit(samples["step"], samples["bytes"], settled)}


def fit(steps: Sequence[int], sizes: Sequence[int], settled: int) -> dict[str, float]:
    """`bytes a step` by least squares over the samples after step `settled`; `growth` from the first to the last."""
    late = [(step, size) for step, size in zip(steps, sizes) if step > settled]
    x, y = np.array(late, dtype=np.float64).T
    return {"bytes a step": float(np.polyfit(x, y, 1)[0]), "growth": float(y[-1] - y[0])}


def _samples(steps: int, every: int) -> dict[str, list[int]]:
    import mxnet as mx

    from gan_kd.data.dataset import open_split
    from gan_kd.data.loader import Loader
    from gan_kd.detectors.ssd.transform import SSDTrainTransform
    from gan_kd.evaluation.evaluate import evaluate
    from gan_kd.gluon.optim import Optimisation, Position
    from gan_kd.recipe import Data, Distill, Eval, Gan, Optimizer, Recipe, Stage, Student, Teacher
    from gan_kd.training.distillers import build_distillers
    from gan_kd.training.networks import build_student, build_teacher
    from gan_kd.training.step import Step
    from scripts.timings.evaluation import test_set

    with tempfile.TemporaryDirectory() as folder:
        root, split, _ = test_set(Path(folder))
        data = Data(dataset="folder", root=str(root), train=[split], val=[split], classes="annotations", size=SIZE)
        recipe = Recipe(
            "memory",
            data=data,
            teacher=Teacher("mobilenet0.5", "random"),
            student=Student("mobilenet0.25", "random"),
            distill=Distill(gan=Gan(width=32)),
        )
        stage = Stage("distilled", 1, Optimizer("adam", 1e-4), distillers=["gan", "cosine_attention"])
        dataset, contexts = open_split(data, "train"), [mx.cpu()]
        few = type(dataset)(dataset.classes, dataset.records[: 4 * BATCH])
        teacher = build_teacher(recipe, dataset.classes)
        teacher.extractor.freeze()
        networks = build_student(recipe, dataset.classes, "distilled", teacher)
        optimisation = Optimisation(networks.parameters(), stage.optimizer, stage.schedule, contexts)
        step = Step(networks, build_distillers(recipe, stage, networks, contexts), optimisation, contexts)
        anchors = networks.detector.head.anchors(networks.detector.extractor.sizes)
        found: dict[str, list[int]] = {"step": [], "bytes": []}
        networks.hybridize()
        with Loader(few, SSDTrainTransform(SIZE, anchors), BATCH, WORKERS, seed=0, train=True) as loader:
            for number, batch in zip(range(1, steps + 1), _endless(loader)):
                step(batch, Position(number, steps, 1))
                if number % every == 0:
                    mx.nd.waitall()
                    found["step"].append(number)
                    found["bytes"].append(resident())
                if number % EVALUATED == 0:
                    evaluate(networks.detector, few, contexts, Eval(batch_size=BATCH), WORKERS, progress=False)
                    networks.hybridize()
    return found


def _endless(loader: Any) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def resident() -> int:
    """Bytes of main memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(_samples(*json.loads(sys.argv[1]))))
