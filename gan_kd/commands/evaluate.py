"""The command that measures one params file: AP by class, mAP, and the published row beside it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from gan_kd.errors import RunError, UsageError
from gan_kd.export.files import is_export
from gan_kd.recipe import Recipe, contexts_from, load
from gan_kd.system.strict_json import dumps


def main(argv: Sequence[str]) -> int:
    """Measure what the arguments name and print it; returns 0. UserError as `gan_kd.__main__` expects it."""
    _evaluate(_parser().parse_args(argv))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gan_kd eval",
        description="Measure a trained network: AP of each class, mAP, and the published row beside it.",
    )
    what = "a run's best.params, or an export: its folder or a file"
    parser.add_argument("--params", type=Path, required=True, metavar="FILE", help=what)
    parser.add_argument(
        "--recipe", metavar="NAME", help="shipped, or a .yaml file (recipe.yaml of the run that FILE lies in)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    devices = parser.add_argument_group("devices (the recipe's)").add_mutually_exclusive_group()
    devices.add_argument("--gpus", metavar="0,1", help="GPUs to use; '' is the CPU")
    devices.add_argument("--contexts", metavar="cpu:0,cpu:1", help="devices to use")
    keys = parser.add_argument_group("keys of the recipe, instead of its own")
    keys.add_argument("--dataset-root", metavar="FOLDER", help="data.root")
    keys.add_argument("--batch-size", metavar="N", help="eval.batch_size")
    keys.add_argument("-j", "--num-workers", metavar="N", help="train.num_workers")
    keys.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key")
    return parser


def _evaluate(arguments: argparse.Namespace) -> None:
    # In the order of what is quickest to find wrong; MXNet takes seconds to load.
    exported = is_export(arguments.params)
    if not exported and not arguments.params.is_file():
        raise UsageError(f"{arguments.params}: no such file; a run has runs/RECIPE/SEED/NETWORK/best.params")
    if arguments.json is not None and not arguments.json.resolve().parent.is_dir():
        raise UsageError(f"--json {arguments.json}: its folder is not there; make it first")
    recipe = _recipe(arguments)

    from gan_kd import compat

    compat.set_default_threads(recipe.train.num_workers)
    from gan_kd.evaluation.evaluate import evaluate_params
    from gan_kd.export.load import evaluate_exported
    from gan_kd.gluon.contexts import open_contexts
    from gan_kd.report.compare import published_for, taught_otherwise, text

    if exported:
        result = evaluate_exported(recipe, arguments.params)
    else:
        result = evaluate_params(recipe, arguments.params, open_contexts(recipe.train.contexts))
    published = published_for(recipe, result["network"], result["map"])
    otherwise = taught_otherwise(recipe, result) if published is not None else None
    published = None if otherwise else published
    shown = text(result, published, otherwise)
    if arguments.json is not None:
        result.pop("samples", None)
        try:
            arguments.json.write_text(dumps({**result, "published": published}, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise RunError(f"--json {arguments.json} cannot be written: {error.strerror}") from error
    print(shown)


def recipe_of_run(params: Path) -> Path:
    """The recipe.yaml of the run folder around a params file; UsageError where it lies in none."""
    recipe = params.resolve().parent.parent / "recipe.yaml"
    if not recipe.is_file():
        raise UsageError(f"{params} lies in no run folder: name its recipe (--recipe)")
    return recipe


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe named, or that of the run folder around the params file, with the flags as overrides."""
    source = arguments.recipe
    if source is None:
        source = recipe_of_run(arguments.params)
    overrides = {
        # JSON is YAML, and a folder named 2012 stays a text.
        "data.root": arguments.dataset_root and json.dumps(arguments.dataset_root, ensure_ascii=False),
        "eval.batch_size": arguments.batch_size,
        "train.num_workers": arguments.num_workers,
    }
    given = [f"{key}={value}" for key, value in overrides.items() if value is not None]
    contexts = contexts_from(arguments.gpus, arguments.contexts)
    if contexts is not None:
        given.append(f"train.contexts={json.dumps(contexts)}")
    return load(source, [*given, *arguments.set])
