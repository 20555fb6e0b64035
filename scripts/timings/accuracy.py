"""Whether a network learns as well from our loader's batches as from GluonCV's: the mAP of short trainings with each.

Every training is a process of its own, those of one seed at the same time: nothing is timed here.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gan_kd import compat  # noqa: F401  (before MXNet)
from gan_kd.data.batch import TrainBatch
from gan_kd.recipe import Recipe, load
from gan_kd.system.timing import Result

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "mini/mobilenet0.25-mobilenet1.0"  # its baseline student, from an ImageNet backbone
SIZE, EPOCHS, SEEDS = 160, 4, (1, 2, 3)
SIDES = ("ours", "GluonCV")


def run(rounds: int) -> list[Result]:
    """loader_map_ratio, a ratio a seed; `rounds` does not count."""
    what = f"mAP after {EPOCHS} epochs with our loader over that with GluonCV's, {RECIPE} (baseline) at {SIZE} px"
    aim = 0.9
    if not (ROOT.parent / "shared/data/voc12-animals").is_dir():
        note = "Not run here: the images and the backbone of the recipe (../shared) are not beside the project."
        return [Result("loader_map_ratio", what, [], aim, notes=[note])]
    maps = [_in_processes(seed) for seed in SEEDS]
    details = {f"{side}, seed {seed}, mAP %": found[side] for seed, found in zip(SEEDS, maps) for side in SIDES}
    by_seed = [found["ours"] / found["GluonCV"] for found in maps]
    return [Result("loader_map_ratio", what, by_seed, aim, details=details)]


def _in_processes(seed: int) -> dict[str, float]:
    command = [sys.executable, "-m", "scripts.timings.accuracy"]
    running = {
        side: subprocess.Popen([*command, side, str(seed)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for side in SIDES
    }
    printed = {side: process.communicate()[0] for side, process in running.items()}
    for side, process in running.items():
        if process.returncode:
            raise RuntimeError(f"the training with the loader of {side} failed: its message stands above")
    return {side: json.loads(lines.splitlines()[-1]) for side, lines in printed.items()}


def measure(recipe: Recipe, side: str, epochs: int) -> float:
    """mAP in percent after a short training of the recipe's baseline, fed by one of the loaders."""
    import mxnet as mx

    from gan_kd.data.dataset import open_split
    from gan_kd.evaluation.evaluate import evaluate
    from gan_kd.gluon.optim import Optimisation, Position
    from gan_kd.training.networks import build_student
    from gan_kd.training.step import Step

    val = open_split(recipe.data, "val")
    networks = build_student(recipe, val.classes, "baseline", None)
    detector, (stage, *_) = networks.detector, [s for s in recipe.stages.values() if s and s.trains == "baseline"]
    anchors = detector.head.anchors(detector.extractor.sizes)
    batches, count = (_ours if side == "ours" else _gluoncv)(recipe, anchors)
    optimisation = Optimisation(networks.parameters(), stage.optimizer, stage.schedule, [mx.cpu()])
    step = Step(networks, [], optimisation, [mx.cpu()])
    networks.hybridize()
    for epoch in range(epochs):
        for number, batch in enumerate(batches(epoch)):
            step(batch, Position(epoch * count + number, epochs * count, epochs))
    return evaluate(detector, val, [mx.cpu()], recipe.eval, 0, progress=False).map


Batches = Callable[[int], Iterator[TrainBatch]]  # of an epoch


def _ours(recipe: Recipe, anchors: np.ndarray) -> tuple[Batches, int]:
    from gan_kd.data.dataset import open_split
    from gan_kd.data.loader import Loader
    from gan_kd.detectors.ssd.transform import SSDTrainTransform

    dataset, transform = open_split(recipe.data, "train"), SSDTrainTransform(recipe.data.size, anchors)
    loader = Loader(dataset, transform, recipe.train.batch_size, num_workers=0, seed=recipe.train.seed, train=True)
    return loader.epoch, len(loader)


def _gluoncv(recipe: Recipe, anchors: np.ndarray) -> tuple[Batches, int]:
    """As in GluonCV's train_ssd.py, in this process."""
    import mxnet as mx
    from gluoncv.data import VOCDetection
    from gluoncv.data.batchify import Stack, Tuple
    from gluoncv.data.transforms.presets.ssd import SSDDefaultTrainTransform

    random.seed(recipe.train.seed)  # GluonCV draws from the generators of the process
    size, root = recipe.data.size, Path(str(recipe.data.root))
    year, split = recipe.data.train[0].split("/")
    dataset_type = type("Named", (VOCDetection,), {"CLASSES": tuple(recipe.data.classes)})
    dataset = dataset_type(root=str(root), splits=[(int(year), split)])
    loader = mx.gluon.data.DataLoader(
        dataset.transform(SSDDefaultTrainTransform(size, size, mx.nd.array(anchors[None]))),
        recipe.train.batch_size,
        shuffle=True,
        batchify_fn=Tuple(Stack(), Stack(), Stack()),
        last_batch="discard",
    )

    def epoch(_: int) -> Iterator[TrainBatch]:
        for batch in loader:
            images, *targets = (part.asnumpy() for part in batch)
            yield TrainBatch(images, np.full((len(images), 1, 5), -1, np.float32), tuple(targets))

    return epoch, len(loader)


if __name__ == "__main__":
    chosen = load(RECIPE, [f"data.size={SIZE}", f"train.seed={sys.argv[2]}"])
    print(json.dumps(measure(chosen, sys.argv[1], EPOCHS)))
