"""Whether several devices train as one does: the same steps on both, and the largest differences.

`python scripts/parity.py` prints them. Networks, images and boxes are drawn; five images go to two devices, so that
their shares differ. BatchNorm over five cells magnifies rounding: in float32 it is seen after three steps, whatever
the devices, and one row says how far it goes; so equality is shown in float64 and by the first step in float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gan_kd import compat  # noqa: F401

# isort: split
import mxnet as mx
import numpy as np

from gan_kd.data.batch import TrainBatch
from gan_kd.data.dataset import open_split
from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.network import join, split
from gan_kd.evaluation.evaluate import evaluate
from gan_kd.gluon.optim import Optimisation, Position
from gan_kd.recipe import Data, Demo, Distill, Eval, Gan, Optimizer, Recipe, Stage, Student, Teacher, Train
from gan_kd.system.strict_json import dumps
from gan_kd.training.distillers import build_distillers
from gan_kd.training.networks import build_student, build_teacher
from gan_kd.training.step import Step

CLASSES = ("circle", "square")
SIZE, BATCH, STEPS = 128, 5, 3
BOTH = ("gan", "cosine_attention")
ONE, TWO = (mx.cpu(0),), (mx.cpu(0), mx.cpu(1))


@dataclass(frozen=True)
class Row:
    """What was compared, and the largest absolute difference of each kind of number."""

    what: str
    differences: Mapping[str, float]

    def __str__(self) -> str:
        """One line of the table."""
        return f"{self.what:<72}" + ", ".join(f"{kind} {value:.1e}" for kind, value in self.differences.items())


def new_step(
    distillers: Sequence[str], contexts: Sequence[mx.Context], sync_bn: bool = False, dtype: str = "float32"
) -> Step:
    """A Step on drawn networks, the same at every call; with distillers a student that learns from a teacher."""
    recipe = Recipe(
        name="parity",
        data=Data(size=SIZE),
        teacher=Teacher("mobilenet0.5", "random"),
        student=Student("mobilenet0.25", "random"),
        distill=Distill(gan=Gan(width=8)),
        train=Train(sync_bn=sync_bn),
    )
    stage = Stage("distilled" if distillers else "baseline", 1, Optimizer(lr=0.001), distillers=list(distillers))
    teacher = build_teacher(recipe, CLASSES)
    teacher.extractor.freeze()
    networks = build_student(recipe, CLASSES, stage.trains, teacher)
    methods = build_distillers(recipe, stage, networks, contexts)
    for block in (networks.detector, networks.teacher):
        if block is not None:
            block.collect_params().reset_ctx(list(contexts))
    for block in (networks.detector, networks.teacher, *(getattr(method, "dnet", None) for method in methods)):
        if block is not None:
            block.cast(dtype)
    networks.hybridize()
    optimisation = Optimisation(networks.parameters(), stage.optimizer, stage.schedule, contexts)
    return Step(networks, methods, optimisation, contexts, sync_bn)


def new_batch(step: Step, seed: int, dtype: str = "float32", error: float = 0.0) -> TrainBatch:
    """Noise, in which every twentieth anchor is a positive one. error: of the pixels, relative."""
    rng = np.random.default_rng(seed)
    detector = step.networks.detector
    anchors = len(detector.head.anchors(detector.extractor.sizes))
    images, *targets = (
        array.astype(dtype)
        for array in (
            rng.standard_normal((BATCH, 3, SIZE, SIZE)) * (1 + error),
            np.where(rng.random((BATCH, anchors)) < 0.05, 1.0, 0.0),
            rng.standard_normal((BATCH, anchors, 4)),
        )
    )
    return TrainBatch(images, np.full((BATCH, 1, 5), -1, dtype), tuple(targets))


def outcome(step: Step, dtype: str = "float32", steps: int = STEPS, error: float = 0.0) -> dict[str, list[np.ndarray]]:
    """Losses of some steps, then weights and BatchNorm's statistics on every device, in a fixed order."""
    found: dict[str, list[np.ndarray]] = {"losses": [], "weights": [], "statistics": []}
    for seed in range(steps):
        named = step(new_batch(step, seed, dtype, error), Position(seed, steps, 1))
        found["losses"].append(np.array([sum(p.asscalar() for p in parts) for parts in named.values()]))
    for block in (step.networks.detector, *(getattr(method, "dnet", None) for method in step.distillers)):
        for name, parameter in block._collect_params_with_prefix().items() if block is not None else ():
            copies = np.stack([data.asnumpy() for data in parameter.list_data()])
            found["statistics" if name.endswith(("_mean", "_var")) else "weights"].append(copies)
    return found


def compare(what: str, one: Mapping[str, list[np.ndarray]], other: Mapping[str, list[np.ndarray]]) -> Row:
    """Two outcomes, of which the first is of one device."""
    return Row(what, {k: max(float(np.abs(a - b).max()) for a, b in zip(one[k], other[k])) for k in one})


def two_contexts(distillers: Sequence[str], sync_bn: bool = True, dtype: str = "float32", steps: int = STEPS) -> Row:
    """Training steps of five images on two contexts, and on one."""
    found = [outcome(new_step(distillers, contexts, sync_bn, dtype), dtype, steps) for contexts in (ONE, TWO)]
    what = " + ".join(distillers) or "baseline"
    return compare(f"two contexts{', syncbn' if sync_bn else ''}: {what}, {dtype}, steps: {steps}", *found)


def rounding() -> Row:
    """One context, its pixels off by one part in ten million, the rounding of float32."""
    found = [outcome(new_step(BOTH, ONE), error=error) for error in (0.0, 1e-7)]
    return compare(f"pixels off by 1e-7: {' + '.join(BOTH)}, float32, steps: {STEPS}", *found)


def evaluation() -> Row:
    """Five images in batches of four, so that the last leaves a context without any, and on one context."""
    measured = Eval(batch_size=4)
    with tempfile.TemporaryDirectory() as root:
        data = Data("demo", root, ["train"], ["test"], "annotations", size=SIZE, demo=Demo(train=5, test=5))
        val = open_split(data, "val")
        found = []
        for contexts in (ONE, TWO):
            mx.random.seed(0)
            detector = join(*split(zoo.build("mobilenet0.25", SIZE, val.classes)))
            detector.collect_params().reset_ctx(list(contexts))
            result = evaluate(detector, val, contexts, measured, num_workers=0, progress=False)
            found.append({"detections": result.detections, "mAP": [np.array(result.map)]})
    return compare("two contexts: evaluation, float32", *found)


#: Every row, in the order of the table.
COMPARISONS: tuple[Callable[[], Row], ...] = (
    lambda: two_contexts((), dtype="float64"),
    lambda: two_contexts(("gan",), dtype="float64"),
    lambda: two_contexts(BOTH, dtype="float64"),
    lambda: two_contexts(BOTH, steps=1),
    lambda: two_contexts(BOTH),
    rounding,
    lambda: two_contexts(BOTH, sync_bn=False, steps=1),
    evaluation,
)


def main(argv: Sequence[str]) -> int:
    """Print every row, and write them to --json where it is given."""
    parser = argparse.ArgumentParser(prog="python scripts/parity.py", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    arguments = parser.parse_args(argv)
    rows = []
    print("largest differences from one context")
    for comparison in COMPARISONS:
        rows.append(comparison())
        print(rows[-1], flush=True)
    if arguments.json:
        with open(arguments.json, "w") as stream:
            stream.write(dumps([dataclasses.asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
