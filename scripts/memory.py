#!/usr/bin/env python3
"""The estimate of a recipe's memory beside the peak of its training, for small networks of every detector family."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gan_kd import compat  # noqa: F401

# isort: split
from gan_kd.data.check import preflight
from gan_kd.errors import RunError, UserError
from gan_kd.recipe import load
from gan_kd.report import page
from gan_kd.system.machine import machine
from gan_kd.system.version import commit
from gan_kd.training.estimate import estimates
from gan_kd.training.networks import assemble

ABOUT = """Train each case on drawn images in a process of its own, one epoch a stage, and print what the log's estimate
says of main memory, the peak of the process, and their ratio. --out also writes memory.md and memory.html there."""

REMARK = (
    "The estimate is that of the stage that takes most, as the log has it before the first batch. The peak is the "
    "largest resident memory of the training process: drawn images, one epoch a stage, evaluations and report "
    "included, no loader workers. The factors of the estimate were fitted to SSDs on another machine."
)
ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
# Runs a command and prints the peak of its memory. Small itself, for a process begins with the peak of its parent.
_WATCH = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""
_SMALL = ("data.demo={train: 16, test: 8}", "eval.batch_size=8", "train.num_workers=0")
_PAIR = ("teacher.backbone=mobilenet1.0", "student.backbone=mobilenet0.25", "data.size=192")


class Case(NamedTuple):
    """Networks and settings in words, the family, stages to leave out, and what differs from its torture recipe."""

    words: str
    family: str
    without: tuple[str, ...]
    overrides: tuple[str, ...]


_BESIDE = ("baseline", "baseline_finetune", "control", "finetune")  # they take no more than the distilled student
CASES = {
    "ssd": Case(
        "SSD MobileNet0.25 <- MobileNet0.5, two distillers, D of 128 channels, 192 px, batch 8",
        "ssd",
        _BESIDE,
        ("data.size=192", "distill.gan.width=128", "train.batch_size=8"),
    ),
    "ssd-alone": Case(
        "SSD MobileNet0.25 alone, 256 px, batch 16",
        "ssd",
        ("teacher", "baseline_finetune", "control", "adversarial", "finetune"),
        ("data.size=256", "train.batch_size=16"),
    ),
    "ssd-large": Case(
        "SSD MobileNet1.0 <- ResNet18, two distillers, D of 512 channels, 300 px, batch 8",
        "ssd",
        _BESIDE,
        (
            "teacher.backbone=resnet18_v1",
            "student.backbone=mobilenet1.0",
            "data.size=300",
            "distill.gan.width=512",
            "train.batch_size=8",
        ),
    ),
    "gfl": Case(
        "GFL MobileNet0.25 <- MobileNet1.0, 64 channels, three distillers, 192 px, batch 8",
        "gfl",
        ("baseline",),
        (*_PAIR, "gfl={width: 64, convolutions: 4, groups: 8, reg_max: 16}", "train.batch_size=8"),
    ),
    "yolo3": Case(
        "YOLOv3 MobileNet0.25 <- MobileNet1.0, four distillers, 192 px, batch 8",
        "yolo3",
        ("baseline", "control"),
        (*_PAIR, "yolo3.sides=[]", "distill.gan.width=64", "train.batch_size=8"),
    ),
    "faster_rcnn": Case(
        "Faster R-CNN MobileNet0.25 <- MobileNet1.0, three distillers, 192 px, batch 2",
        "faster_rcnn",
        _BESIDE,
        (*_PAIR, "faster_rcnn.roi_size=7", "distill.gan.width=64", "train.batch_size=2"),
    ),
}


class Measured(NamedTuple):
    """Bytes of the stage that takes most, as estimated, and of the process at its peak."""

    estimate: float
    peak: float

    @property
    def ratio(self) -> float:
        """Estimate over peak."""
        return self.estimate / self.peak


def measure(case: Case) -> Measured:
    """Train a case once. RunError where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        left_out = (f"stages.{stage}=null" for stage in case.without)
        overrides = [*_SMALL, *left_out, *case.overrides, f"data.root={folder}/data"]
        file = str(ROOT / f"scripts/torture_recipes/{case.family}.yaml")
        recipe = load(file, overrides)
        shapes = assemble(recipe, preflight(recipe.data)[0].classes)
        batch = recipe.train.batch_size
        estimate = max(sum(stage(batch).main_memory().values()) for stage in estimates(recipe, shapes))
        command = [sys.executable, "-m", "gan_kd", "train", "--recipe", file, "--save-prefix", folder]
        for override in overrides:
            command += ["--set", override]
        done = subprocess.run([sys.executable, "-c", _WATCH, *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"{case.words}: {done.stderr.strip().splitlines()[-1]}")
    return Measured(estimate, int(done.stdout) * 1024)  # Linux counts KiB


def main(argv: Sequence[str]) -> int:
    """Measure the cases that the arguments name; 0, or 1 with a sentence where one fails."""
    parser = argparse.ArgumentParser(prog="python scripts/memory.py", description=ABOUT)
    parser.add_argument("--only", action="append", choices=list(CASES), help="a case (all)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the page there")
    arguments = parser.parse_args(argv)
    rows = []
    try:
        for name in arguments.only or CASES:
            found = measure(CASES[name])
            rows.append((CASES[name].words, *(f"{size / MIB:,.0f}" for size in found), f"{found.ratio:.2f}"))
            print("{}: estimate {} MiB, peak {}, ratio {}".format(*rows[-1]), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.out:
        print(f"page: {_write(arguments.out, rows, shlex.join(['python', 'scripts/memory.py', *argv]))}")
    return 0


def _write(folder: Path, rows: Sequence[tuple[str, ...]], command: str) -> Path:
    setting = [("commit", commit()), ("machine", ", ".join(f"{key} {value}" for key, value in machine().items()))]
    folder.mkdir(parents=True, exist_ok=True)
    blocks: list[page.Block] = [
        page.Text(REMARK),
        page.Table(("networks and settings", "estimate, MiB", "peak, MiB", "ratio"), rows, "lrrr"),
        page.Section("How it was made"),
        page.Code(command, "sh"),
        page.Table(("", ""), setting, "ll"),
    ]
    return page.write(folder, "Memory: the estimate before the first batch, and the peak", blocks, "memory")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
