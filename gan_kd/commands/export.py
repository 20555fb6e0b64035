"""The command that exports a params file."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from gan_kd.errors import UsageError
from gan_kd.recipe import Recipe, load

FORMATS = ("mxnet", "onnx", "int8")


def main(argv: Sequence[str]) -> int:
    """Export what the arguments name and print what each form costs; returns 0. UserError for `gan_kd.__main__`."""
    arguments = _parser().parse_args(argv)
    for file in filter(None, (arguments.params, arguments.teacher)):
        if not file.is_file():
            raise UsageError(f"{file}: no such file; a run has runs/RECIPE/SEED/NETWORK/best.params")
    if arguments.calibrate and "int8" not in arguments.format:
        raise UsageError("--calibrate is for int8: add --format mxnet,onnx,int8")
    recipe = _recipe(arguments)

    from gan_kd import compat

    compat.set_default_threads()
    from gan_kd.export import table
    from gan_kd.export.run import export

    record = export(
        arguments.params,
        arguments.out,
        arguments.format,
        arguments.images,
        arguments.calibrate,
        recipe,
        arguments.teacher,
        command=shlex.join(["python", "-m", "gan_kd", "export", *argv]),
    )
    print(table.text(record))
    print(f"written: {arguments.out}/export.md and the files that it names")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gan_kd export",
        description="Write a trained network without teacher, critic and optimiser: MXNet's symbol, ONNX, int8. Each "
        "is checked against the network, and all are timed in turn.",
    )
    parser.add_argument("--params", type=Path, required=True, metavar="FILE", help="a run's best.params")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    parser.add_argument(
        "--format", type=_formats, default=["mxnet", "onnx"], metavar="LIST", help="of mxnet,onnx,int8 (mxnet,onnx)"
    )
    for flag, use in (
        ("--images", "images or folders to compare ONNX and MXNet on (the recipe's val)"),
        ("--calibrate", "images or folders to calibrate int8 with (the recipe's train)"),
    ):
        parser.add_argument(flag, type=Path, nargs="+", default=[], metavar="IMAGES", help=use)
    parser.add_argument(
        "--recipe", metavar="NAME", help="measure mAP on the val split of this recipe, shipped or a run's recipe.yaml"
    )
    parser.add_argument("--dataset-root", metavar="FOLDER", help="where the data of --recipe is")
    parser.add_argument(
        "--teacher", type=Path, metavar="FILE", help="the teacher's best.params, for a row of the table"
    )
    return parser


def _formats(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(FORMATS):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of {', '.join(FORMATS)}, with commas between")
    return names


def _recipe(arguments: argparse.Namespace) -> Recipe | None:
    root = arguments.dataset_root
    if arguments.recipe is None:
        if root is not None:
            raise UsageError("--dataset-root belongs to --recipe, which says how the data is laid out")
        return None
    # JSON is YAML, and a folder named 2012 stays a text.
    return load(arguments.recipe, [] if root is None else [f"data.root={json.dumps(root, ensure_ascii=False)}"])
