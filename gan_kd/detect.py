"""The command that detects: pictures with boxes, and every box in COCO's result format."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gan_kd.errors import UsageError


def main(argv: Sequence[str]) -> int:
    """Detect what the arguments name; returns 0. UserError as `gan_kd.__main__` expects it."""
    arguments = _parser().parse_args(argv)
    if not arguments.params.is_file():
        raise UsageError(f"{arguments.params}: no such file; a run has runs/RECIPE/SEED/NETWORK/best.params")

    from gan_kd import compat

    compat.set_default_threads(arguments.num_workers)
    from gan_kd.detection.run import detect

    contexts = [f"gpu:{number}" for number in arguments.gpus.split(",")] if arguments.gpus else ["cpu:0"]
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
    parser.add_argument("--params", type=Path, required=True, metavar="FILE", help="a run's best.params")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where pictures and JSON go")
    parser.add_argument(
        "--threshold", type=_score, default=0.3, metavar="SCORE", help="least score of a detection (%(default)s)"
    )
    parser.add_argument("--batch-size", type=_count, default=8, metavar="N", help="images a forward pass (%(default)s)")
    parser.add_argument("--gpus", metavar="0,1", help="GPUs to use (default: the CPU)")
    parser.add_argument(
        "-j", "--num-workers", type=int, default=0, metavar="N", help="processes that read images (%(default)s)"
    )
    return parser


def _score(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a score from 0 to 1")
    return value


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)
