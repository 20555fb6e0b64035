"""The command that detects: pictures with boxes, and every box in COCO's result format."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from gan_kd.errors import UsageError
from gan_kd.export.files import is_export
from gan_kd.recipe import contexts_from


def main(argv: Sequence[str]) -> int:
    """Detect what the arguments name; returns 0. UserError as `gan_kd.__main__` expects it."""
    arguments = _parser().parse_args(argv)
    contexts = contexts_from(arguments.gpus) or ["cpu:0"]
    if not arguments.params.is_file() and not is_export(arguments.params):
        raise UsageError(f"{arguments.params}: no such file; a run has runs/RECIPE/SEED/NETWORK/best.params")

    from gan_kd import compat

    compat.set_default_threads(arguments.num_workers)
    from gan_kd.detection.run import detect

    print(
        detect(
            arguments.params,
            arguments.source,
            arguments.out,
            arguments.threshold,
            arguments.batch_size,
            contexts,
            arguments.num_workers,
        )
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gan_kd detect",
        description="Detect objects: pictures with boxes, and all boxes in COCO's result format.",
    )
    parser.add_argument("source", type=Path, metavar="IMAGE|FOLDER|VIDEO", help="what to look at")
    parser.add_argument(
        "--params",
        type=Path,
        required=True,
        metavar="FILE",
        help="a run's best.params, or an export: its folder or a file",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where pictures and JSON go")
    parser.add_argument(
        "--threshold", type=_score, default=0.3, metavar="SCORE", help="least score of a detection (%(default)s)"
    )
    parser.add_argument("--batch-size", type=_count, default=8, metavar="N", help="images a forward pass (%(default)s)")
    parser.add_argument("--gpus", metavar="0,1", help="GPUs to use (default: the CPU)")
    parser.add_argument(
        "-j", "--num-workers", type=_number, default=0, metavar="N", help="processes that read images (%(default)s)"
    )
    return parser


def _score(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text} is not a score from 0 to 1")


def _number(text: str, least: int = 0) -> int:
    with contextlib.suppress(ValueError):
        if int(text) >= least:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} on")


def _count(text: str) -> int:
    return _number(text, 1)
