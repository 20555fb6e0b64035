#!/usr/bin/env python3
"""The label-free test: does a distiller alone lower the detection loss?

    python scripts/label_free.py RECIPE [--steps 80] [--seeds 1,2,3] [--methods NAME,NAME] [--out results]

The student's backbone and adapters learn from each method alone, without a label; the head is the teacher's and
stands still. On held-out images it writes L_conf and L_loc through that head, how alike the attention is, and the
direction in which the method pushes: its cosine with the way to the teacher's map, T - S, and the part of it that
is the same for all images. RECIPE names data, student and a trained teacher. A score here does not predict the rank
in mAP: labels are missing, and the trainings are short. Its file grows with each method of each seed; the same command
goes on after a stop.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gan_kd import compat  # noqa: F401  (before MXNet is imported)

# isort: split

import mxnet as mx
import numpy as np
from mxnet import autograd, nd

from gan_kd.data.batch import TrainBatch
from gan_kd.data.check import preflight
from gan_kd.data.loader import Loader
from gan_kd.detectors.base import Detected
from gan_kd.detectors.ssd.head import Outputs
from gan_kd.detectors.ssd.loss import MultiBoxLoss
from gan_kd.detectors.ssd.transform import SSDTrainTransform
from gan_kd.distill.base import Maps, Seen, leaves
from gan_kd.distill.cosine_attention import similarity
from gan_kd.errors import UsageError, UserError
from gan_kd.gluon.optim import Optimisation, Position
from gan_kd.recipe import FeatureImitation, Gan, Optimizer, OutputImitation, Recipe, Schedule, Stage, load, recipe_hash
from gan_kd.study.report import labelfree
from gan_kd.system.files import write_json
from gan_kd.system.machine import machine
from gan_kd.system.version import commit
from gan_kd.training.distillers import build_distillers
from gan_kd.training.networks import Networks, build_student, build_teacher
from gan_kd.training.step import Step

HELD_OUT = 64  # images
EVERY = 20  # steps between measurements
CPU = mx.cpu()
_D = Optimizer("adam", lr=4e-4, beta1=0.5, beta2=0.99, wd=0.0)
_CELLS: dict[str, Any] = {
    "kind": "cell", "loss": "hinge", "limit": "spectral", "norm": "none", "input": "standard", "width": 64,
    "slopes": "unit", "optimizer": _D, "schedule": Schedule(at=[]),
}  # fmt: skip
_BESIDE = {**_CELLS, "condition": "teacher"}


class Method(NamedTuple):
    """Distillers by name and their settings; `warm`: steps that D learns alone before the student moves."""

    distillers: tuple[str, ...]
    settings: dict[str, Any] = {}
    warm: int = 1


METHODS = {
    "as written": Method(("gan",), {"gan": Gan(width=128, slopes="unit")}, 40),
    "no norm": Method(("gan",), {"gan": Gan(width=128, norm="none", slopes="unit")}, 40),
    "penalty": Method(
        ("gan",),
        {
            "gan": Gan(
                width=64, norm="none", limit="penalty", input="standard", slopes="unit", critic_steps=2, optimizer=_D,
                schedule=Schedule(at=[]),
            )
        },
        40,
    ),  # fmt: skip
    "cell": Method(("gan",), {"gan": Gan(**_CELLS)}, 40),
    "conditional cell": Method(("gan",), {"gan": Gan(**_BESIDE)}, 40),
    "conditional cell + match": Method(("gan",), {"gan": Gan(**_BESIDE, weight=0.1, match=30.0)}, 40),
    "frozen: match alone": Method(("gan",), {"gan": Gan(**_BESIDE, weight=0.0, match=30.0, critic_steps=0)}),
    "cosine attention": Method(("cosine_attention",)),
    "cwd": Method(("cwd",)),
    "squared distance": Method(("feature_imitation",)),
    "standardised distance": Method(
        ("feature_imitation",), {"feature_imitation": FeatureImitation(input="standard")}
    ),
    "outputs": Method(("outputs",)),
    "outputs + standardised distance": Method(
        ("feature_imitation", "outputs"),
        {"feature_imitation": FeatureImitation(30.0, "standard"), "outputs": OutputImitation(2.0)},
    ),
}  # fmt: skip


class LabelFree(Step):
    """A step on the distillers' losses alone."""

    def detection(self, maps: Sequence[Maps], prepared: Sequence[Any]) -> Detected:
        return Detected({}, [self.networks.detector.head.outputs(part) for part in maps])


class Held(NamedTuple):
    """The held-out images as one batch, and the teacher's maps and outputs of them."""

    images: nd.NDArray
    targets: tuple[nd.NDArray, nd.NDArray]
    positives: int
    maps: Maps
    outputs: Outputs


def run(step: Step, method: Method, steps: int, batches: Iterator[TrainBatch], held: Held) -> dict[str, Any]:
    """Train by one method: the measurements over the steps, and the push before the first of them."""
    for number in range(method.warm):
        step.warm_up(next(batches), Position(0, steps, 1, number))
    pushed = push(step, held)
    curve = [{"step": 0, **measure(step.networks, held)}]
    for number in range(1, steps + 1):
        step(next(batches), Position(number - 1, steps, 1, method.warm))
        if number % EVERY == 0 or number == steps:
            curve.append({"step": number, **measure(step.networks, held)})
    return {"curve": curve, **pushed}


def prepare(recipe: Recipe, method: Method, classes: Sequence[str]) -> Step:
    """Fresh networks of the recipe's seed, the head frozen, and the method's distillers."""
    distill = dataclasses.replace(recipe.distill, head="inherit", **method.settings)
    recipe = dataclasses.replace(recipe, distill=distill)
    teacher = build_teacher(recipe, classes)
    teacher.extractor.freeze()
    networks = build_student(recipe, classes, "distilled", teacher)
    networks.detector.head.collect_params().setattr("grad_req", "null")
    optimizer = Optimizer("adam", lr=5e-4, wd=0.0)
    stage = Stage("distilled", 1, optimizer, Schedule(at=[]), list(method.distillers))
    optimisation = Optimisation(networks.parameters(), optimizer, stage.schedule, [CPU])
    step = LabelFree(networks, build_distillers(recipe, stage, networks, [CPU]), optimisation, [CPU])
    networks.hybridize()
    return step


def student_maps(networks: Networks, images: nd.NDArray) -> Maps:
    """Adapted maps, BatchNorm with its running statistics."""
    maps = networks.detector.extractor(images)
    return maps if networks.detector.adapters is None else networks.detector.adapters(*maps)


def detection_loss(outputs: Outputs, held: Held) -> dict[str, float]:
    """L_conf and L_loc of all held-out images together."""
    scale = nd.array([1 / max(1, held.positives)])
    conf, loc = MultiBoxLoss()(*outputs, *held.targets, scale)
    return {"conf": float(conf.asscalar()), "loc": float(loc.asscalar())}


def measure(networks: Networks, held: Held) -> dict[str, Any]:
    """Losses through the teacher's head and the attention's cosine at each map."""
    maps = student_maps(networks, held.images)
    cosines = [float(nd.mean(similarity(t, s)).asscalar()) for t, s in zip(held.maps, maps)]
    return {**detection_loss(Outputs(*networks.detector.head(*maps)), held), "attention": cosines}


def push(step: Step, held: Held) -> dict[str, list[float]]:
    """Of the direction in which the method's gradient moves the student's maps, one number a map.

    `cosine`: with T - S, mean over the images. `common`: |mean over the images|^2 / mean |.|^2, 1 where all are pushed
    alike.
    """
    maps = leaves(student_maps(step.networks, held.images))
    with autograd.record():
        outputs = Outputs(*step.networks.detector.head(*maps))
        seen = [Seen(held.maps, maps, (held.outputs, outputs))]
        parts = [loss for d in step.distillers for loss in d.shares(seen, len(held.images)).values()]
        total = nd.add_n(*[part for (part,) in parts])
    found: dict[str, list[float]] = {"cosine": [], "common": []}
    for m, real, slope in zip(maps, held.maps, autograd.grad([total], maps)):
        moved, way = (-slope).asnumpy().reshape(len(m), -1), (real - m).asnumpy().reshape(len(m), -1)
        lengths = np.linalg.norm(moved, axis=1) * np.linalg.norm(way, axis=1)
        found["cosine"].append(float(np.mean((moved * way).sum(axis=1) / np.maximum(lengths, 1e-20))))
        mean_square = float(np.mean((moved**2).sum(axis=1)))
        found["common"].append(float((moved.mean(axis=0) ** 2).sum() / max(mean_square, 1e-30)))
    return found


def endless(loader: Loader) -> Iterator[TrainBatch]:
    """Training batches without an end."""
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def hold_out(recipe: Recipe, dataset: Any, networks: Networks) -> Held:
    """The first held-out images with their targets, as `augment: flip` shows them; the same for all methods."""
    anchors = networks.detector.head.anchors(networks.detector.extractor.sizes)
    images = min(HELD_OUT, len(dataset))
    transform = SSDTrainTransform(recipe.data.size, anchors, "flip")
    with Loader(dataset, transform, images, 0, 0, train=True) as loader:
        batch = next(loader.epoch(0))
        arrays = [nd.array(array.copy()) for array in (batch.images, *batch.targets)]
    assert networks.teacher is not None and networks.teacher_head is not None
    maps = networks.teacher(arrays[0])
    outputs = Outputs(*networks.teacher_head(*maps))
    positives = int((arrays[1] > 0).sum().asscalar())
    return Held(arrays[0], (arrays[1], arrays[2]), positives, maps, outputs)


def measure_all(
    recipe: Recipe, names: Sequence[str], seeds: Sequence[int], steps: int, rows: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """What label-free.json holds, anew after each method of each seed; `rows` are those that need not run again."""
    train_set, val_set = preflight(recipe.data)
    done = {(row["method"], row["seed"]) for row in rows}
    for seed, name in itertools.product(seeds, names):
        if (name, seed) in done:
            continue
        seeded = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, seed=seed))
        method = METHODS[name]
        step = prepare(seeded, method, train_set.classes)
        held = hold_out(recipe, val_set, step.networks)
        anchors = step.networks.detector.head.anchors(step.networks.detector.extractor.sizes)
        transform = SSDTrainTransform(recipe.data.size, anchors, recipe.data.augment)
        with Loader(train_set, transform, recipe.train.batch_size, 0, seed, train=True) as loader:
            found = run(step, method, steps, endless(loader), held)
        rows.append({"method": name, "seed": seed, **found})
        first, last = found["curve"][0], found["curve"][-1]
        print(f"seed {seed}, {name}: L_conf {first['conf']:.2f} -> {last['conf']:.2f}", flush=True)
        sides = [m.shape[-1] for m in held.maps]
        teacher = detection_loss(held.outputs, held)
        yield {"rows": rows, "teacher": teacher, "steps": steps, "images": len(held.images), "maps": sides}


def main(argv: Sequence[str]) -> int:
    """0, and 2 or 1 with a sentence for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="label_free.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe", metavar="RECIPE", help="shipped, or a .yaml file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the recipe")
    parser.add_argument("--steps", type=int, default=80, help="of the student (%(default)s)")
    parser.add_argument("--seeds", default="1,2,3", help="of weights and batches (%(default)s)")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"some of: {', '.join(METHODS)}")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="(%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        recipe = load(arguments.recipe, arguments.set)
        seeds, names = _checked(arguments, recipe)
        command = shlex.join(["python", "scripts/label_free.py", *argv])
        about = {"command": command, "recipe": recipe.name, "recipe_hash": recipe_hash(recipe), "commit": commit()}
        arguments.out.mkdir(parents=True, exist_ok=True)
        rows = _kept(arguments.out, arguments.steps, about)
        for found in measure_all(recipe, names, seeds, arguments.steps, rows):
            write_json(arguments.out / labelfree.JSON, {**found, **about, "machine": machine()})
        print(f"report: {labelfree.write(arguments.out)}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _checked(arguments: argparse.Namespace, recipe: Recipe) -> tuple[list[int], list[str]]:
    """Seeds and names of methods; UsageError for what cannot be run."""
    if arguments.steps < 1:
        raise UsageError(f"--steps {arguments.steps} has to be at least 1")
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {arguments.seeds}: write whole numbers with commas between, as in 1,2,3") from None
    names = _names(arguments.methods)
    if recipe.teacher.weights is None:
        raise UsageError(f"recipe {recipe.name} has no trained teacher: name one with --set teacher.weights=FILE")
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(f"--seeds {arguments.seeds}: each seed once, from 0 on")
    return seeds, names


def _kept(folder: Path, steps: int, about: dict[str, str]) -> list[dict[str, Any]]:
    """The rows that the same recipe, steps and commit, stopped or with fewer seeds, left in `folder`."""
    try:
        found = labelfree.read(folder)
    except UsageError:  # damaged: it is written anew
        return []
    if found is None or found["steps"] != steps or any(found[key] != about[key] for key in ("recipe_hash", "commit")):
        return []
    return list(found["rows"])


def _names(text: str) -> list[str]:
    """The methods named, in the order of METHODS."""
    chosen = [part.strip() for part in text.split(",")]
    wrong = [name for name in chosen if name not in METHODS]
    if wrong:
        raise UsageError(f"--methods: there is no method {', '.join(map(repr, wrong))} (one of: {', '.join(METHODS)})")
    return [name for name in METHODS if name in chosen]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
