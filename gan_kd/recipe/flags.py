"""The command line's view of a recipe: GluonCV's familiar flags as overrides of its keys."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from typing import Any

from gan_kd.errors import UsageError
from gan_kd.recipe.load import load
from gan_kd.recipe.schema import Data, Recipe, Train
from gan_kd.recipe.words import network_in_words

# Flags that set one key each; a flag's help is the key's documentation.
_ONE_KEY = {
    "--dataset-root": "data.root",
    "--data-shape": "data.size",
    "--data.on-error": "data.on_error",
    "--batch-size": "train.batch_size",
    "--num-workers": "train.num_workers",
    "--seed": "train.seed",
    "--log-interval": "train.log_interval",
    "--val-interval": "train.val_interval",
}
# No published detector knows the classes of a folder: its teacher is trained with it, to whatever mAP it gives.
_OWN_TEACHER = {"teacher.weights": None, "teacher.min_map": 0}
# What --dataset sets: the data set's usual place, splits, classes and metric.
_DATASETS: dict[str, dict[str, Any]] = {
    "voc": {
        "data.root": "~/.mxnet/datasets/voc",
        "data.train": ["2007/trainval", "2012/trainval"],
        "data.val": ["2007/test"],
        "data.classes": "voc",
        "eval.metric": "voc07",
    },
    "coco": {
        "data.root": "~/.mxnet/datasets/coco",
        "data.train": ["train2017"],
        "data.val": ["val2017"],
        "data.classes": "coco",
        "eval.metric": "coco",
    },
    "folder": {
        "data.train": ["train"],
        "data.val": ["val"],
        "data.classes": "annotations",
        "eval.metric": "voc07",
        **_OWN_TEACHER,
    },
    "demo": {
        "data.root": "data/demo",
        "data.train": ["train"],
        "data.val": ["test"],
        "data.classes": "annotations",
        "eval.metric": "voc07",
        **_OWN_TEACHER,
    },
}


def add_arguments(parser: argparse.ArgumentParser, recipe: str = "voc/mobilenet1.0-resnet50_v1") -> None:
    """Adds --recipe, with this default, and every flag that overrides keys of it, in groups.

    Flags have no default: what is not given stays as the recipe has it. Their help shows the default recipe's values.
    """
    usual = load(recipe)
    group = parser.add_argument_group(
        "recipe", f"keys that are not given stay as the recipe has them; in parentheses those of {recipe}"
    )
    group.add_argument(
        "--recipe",
        default=recipe,
        metavar="NAME",
        help="a name that the command recipes lists, or a .yaml file (%(default)s)",
    )
    group.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the recipe, as often as needed"
    )
    data, training = parser.add_argument_group("data"), parser.add_argument_group("training")
    text = f"data.dataset, its usual root, splits and metric ({usual.data.dataset})"
    data.add_argument("--dataset", choices=list(_DATASETS), help=text)
    devices = parser.add_argument_group("devices").add_mutually_exclusive_group()
    contexts = ",".join(usual.train.contexts)
    devices.add_argument("--gpus", metavar="0,1", help=f"train.contexts by GPU numbers; '' is the CPU ({contexts})")
    devices.add_argument("--contexts", metavar="cpu:0,cpu:1", help="train.contexts")
    training.add_argument("--epochs", metavar="N", help="each network's epochs in all, its stages keeping their shares")
    training.add_argument("--lr", metavar="RATE", help="learning rate of every stage that uses SGD")
    knobs = {f"{cls.__name__.lower()}.{knob.name}": knob for cls in (Data, Train) for knob in dataclasses.fields(cls)}
    for flag, key in _ONE_KEY.items():
        part, _, name = key.partition(".")
        text = f"{key}: {knobs[key].metadata['doc']} ({getattr(getattr(usual, part), name)})".replace("%", "%%")
        names = ("-j", flag) if flag == "--num-workers" else (flag,)
        (data if part == "data" else training).add_argument(*names, dest=key, metavar=name.upper(), help=text)
    training.add_argument(
        "--tensorboard", action="store_true", help="train.tensorboard: event files in RUN/tensorboard"
    )
    training.add_argument("--amp", action="store_true", help="train.amp: mixed precision")
    training.add_argument("--syncbn", action="store_true", help="train.sync_bn: BatchNorm over all contexts together")


def overrides_from(args: argparse.Namespace) -> list[str]:
    """The overrides that the flags stand for, in the order load() applies them.

    --dataset, where it is not the recipe's own, comes first: flags of single keys refine it; then --set.
    --epochs and --lr see all of these: --epochs is each network's total, as in the paper's log (340: 221
    adversarial, 119 after it), and keeps its stages' shares; --lr is SGD's rate, as there, and leaves Adam's
    alone. Raises UsageError for wrong values.
    """
    overrides: list[str] = []
    if args.dataset not in (None, load(args.recipe).data.dataset):
        overrides += [_override("data.dataset", args.dataset), "published=null"]
        overrides += [_override(key, value) for key, value in _DATASETS[args.dataset].items()]
    contexts = contexts_from(args.gpus, args.contexts)
    if contexts is not None:
        overrides.append(_override("train.contexts", contexts))
    for key in _ONE_KEY.values():
        value = getattr(args, key)
        if value is not None:
            overrides.append(_override(key, value) if key in ("data.root", "data.on_error") else f"{key}={value}")
    if args.tensorboard:
        overrides.append("train.tensorboard=true")
    if args.amp:
        overrides.append("train.amp=true")
    if args.syncbn:
        overrides.append("train.sync_bn=true")
    overrides += args.set
    if args.epochs is None and args.lr is None:
        return overrides
    recipe = load(args.recipe, overrides)
    if args.epochs is not None:
        overrides += _epochs(recipe, args.epochs)
    if args.lr is not None:
        sgd = [name for name, stage in recipe.stages.items() if stage.optimizer.name == "sgd"]
        if not sgd:
            example = next(iter(recipe.stages))
            raise UsageError(f"--lr is SGD's, which no stage uses; try --set stages.{example}.optimizer.lr={args.lr}")
        overrides += [f"stages.{name}.optimizer.lr={args.lr}" for name in sgd]
    return overrides


def contexts_from(gpus: str | None, contexts: str | None = None) -> list[str] | None:
    """Names of the devices, as in train.contexts, that --gpus or --contexts stand for; None where neither is given.

    gpus: numbers with commas between; empty is the CPU. contexts: names with commas between, as they are written.
    UsageError for GPUs that are no numbers, or one named twice.
    """
    if gpus is None:
        return None if contexts is None else [name.strip() for name in contexts.split(",")]
    if not gpus.strip():
        return ["cpu:0"]
    numbers = [number.strip() for number in gpus.split(",")]
    if not all(re.fullmatch("[0-9]{1,4}", number) for number in numbers):
        raise UsageError(f"--gpus '{gpus}': write GPU numbers, as in 0,1, or '' for the CPU")
    found = [f"gpu:{int(number)}" for number in numbers]
    if len(set(found)) < len(found):
        raise UsageError(f"--gpus '{gpus}' names a GPU twice")
    return found


def recipe_from(args: argparse.Namespace) -> Recipe:
    """The recipe that the command line asks for."""
    return load(args.recipe, overrides_from(args))


def _override(key: str, value: Any) -> str:
    """JSON is YAML, and keeps a folder named 2012 a text."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _epochs(recipe: Recipe, text: str) -> list[str]:
    """Overrides that give each network `text` epochs in all."""
    if not text.isdigit():
        raise UsageError(f"--epochs {text} has to be a whole number")
    overrides = []
    for network in dict.fromkeys(stage.trains for stage in recipe.stages.values()):
        stages = {name: stage.epochs for name, stage in recipe.stages.items() if stage.trains == network}
        left, share = int(text), sum(stages.values())
        if left < len(stages):
            named = network_in_words(network, recipe.distill.head)
            raise UsageError(f"--epochs {text} is less than the {len(stages)} stages of the {named}")
        for after, (name, epochs) in zip(range(len(stages) - 1, -1, -1), stages.items()):
            given = min(max(1, round(left * epochs / share)), left - after)
            overrides.append(f"stages.{name}.epochs={given}")
            left, share = left - given, share - epochs
    return overrides
