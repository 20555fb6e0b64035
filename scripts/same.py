#!/usr/bin/env python3
"""Two checkouts of this project train, find and export the same numbers to the bit; --help explains the use."""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.same_files import (
    Difference,
    compare_checkpoints,
    compare_digests,
    compare_exports,
    compare_metrics,
    compare_networks,
    require,
)

ABOUT = """Train the same small recipe in two checkouts, in several variants, and compare metrics.jsonl byte by byte and
every array of every params file and checkpoint; resume a stopped run of OLD in NEW; compare digests of recipes, drawn
images, batches, first weights and graphs, detections, and exported files. A line each: equal, or the first difference.
Exit code 0 where all is equal, 1 where not, 2 for wrong use."""
ROOT = Path(__file__).resolve().parents[1]
NAME = "same"
#: Every stage, in seconds; the words are those that the oldest checkouts understand.
RECIPE = """
description: every stage, in seconds
data:
  dataset: demo
  demo: {train: 16, test: 4}
  train: [train]
  val: [test]
  classes: annotations
  augment: flip
  size: 64
teacher: {backbone: mobilenet0.5, init: random}
student: {backbone: mobilenet0.25, init: random}
distill:
  gan: {width: 8, weight: 0.1, warmup_epochs: 1, critic_steps: 2, schedule: {at: []}}
stages:
  teacher: {trains: teacher, epochs: 1, optimizer: &adam {name: adam, lr: 0.005, wd: 0}}
  baseline: {trains: baseline, epochs: 1, optimizer: *adam}
  baseline_finetune: &finetune {trains: baseline, epochs: 1, optimizer: {name: sgd, lr: 0.001, wd: 0.0005}}
  control: {trains: control, epochs: 1, optimizer: *adam}
  adversarial: {trains: distilled, epochs: 1, optimizer: *adam, distillers: [gan, cosine_attention]}
  finetune: {<<: *finetune, trains: distilled}
train: {batch_size: 4, num_workers: 0, contexts: ["cpu:0"], log_interval: 2, val_interval: 1, keep: 100}
"""
_TAUGHT = "stages={baseline: null, baseline_finetune: null}"
_TWO = "train.contexts=['cpu:0', 'cpu:1']"
_SGD = "optimizer: {name: sgd, lr: 0.001, momentum: 0.9}"
#: Settings by variant.
VARIANTS = {
    "plain": [],
    # Without finetune: until 2feda43 a stage without distillers failed where the student had its own head.
    "own-head": [
        "distill.head=student",
        "stages={baseline: null, baseline_finetune: null, control: null, finetune: null}",
    ],
    "unit-slopes": ["distill.gan.slopes=unit", _TAUGHT],
    "relu": ["distill.adapter=relu", _TAUGHT],
    # At the recipe's rates BatchNorm's running statistics, of two images each, fall behind: some processors end in nan.
    "two-contexts": [
        _TWO,
        _TAUGHT,
        *(f"stages.{stage}.optimizer.lr=0.0001" for stage in ("teacher", "control", "adversarial", "finetune")),
    ],
    "sync-bn": [_TWO, "train.sync_bn=true", _TAUGHT],
    "sgd": [
        f"stages={{baseline_finetune: null, baseline: {{{_SGD}}}, control: {{{_SGD}}}, adversarial: {{{_SGD}}}}}",
        f"distill.gan={{{_SGD}}}",
        "data.augment=ssd",
    ],
}
#: The stage in which a run of OLD is stopped, to be resumed in NEW, by variant.
STOPPED = {"plain": "adversarial", "two-contexts": "finetune", "sgd": "adversarial"}
OTHERS = ("digests", "products")
SECONDS = 900  # that any one process may take
#: Digests that no kernel of a processor changes, by their first or last words.
_EXACT = ("recipes: ", "networks: "), (" order", " classes")


class Side(NamedTuple):
    """One of the two checkouts, and a folder for what it makes."""

    checkout: Path
    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen:
        """A Python process that takes the package from the checkout."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.checkout)}
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=self.checkout, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> str:
        """What such a process printed. Difference where it fails."""
        return self.finish(self.start(*arguments))

    def finish(self, process: subprocess.Popen) -> str:
        """What a process printed in all. Difference where it fails."""
        try:
            printed, _ = process.communicate(timeout=SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
        last = (printed.splitlines() or [""])[-1]
        require(process.returncode == 0, f"in {self.checkout}: exit code {process.returncode}: {last}")
        return printed

    def train(self, variant: str, prefix: str, *more: str) -> subprocess.Popen:
        """A run of a variant under way, in `prefix` of its folder."""
        settings = [f"data.root={json.dumps(str(self.folder / 'data'))}", *VARIANTS[variant]]
        sets = [word for setting in settings for word in ("--set", setting)]
        recipe = self.folder.parent / f"{NAME}.yaml"
        run = ["--recipe", str(recipe), *sets, "--save-prefix", str(self.folder / prefix)]
        return self.start("-m", "gan_kd", "train", *run, *more)

    def made(self, prefix: str) -> Path:
        """The folder of a run."""
        return self.folder / prefix / NAME / "233"

    def digests(self, *parts: str, **paths: Sequence[Path]) -> dict[str, str]:
        """Those of some parts of scripts/same_probe.py, by name."""
        out = self.folder / "digests.json"
        options = [word for option, files in paths.items() for word in (f"--{option}", *map(str, files))]
        fixed = ["--out", str(out), "--root", str(self.folder / "data")]
        self.run(str(ROOT / "scripts" / "same_probe.py"), *parts, *fixed, *options)
        return json.loads(out.read_text())


def main(argv: Sequence[str]) -> int:
    """Run as the arguments say; the exit code."""
    parser = argparse.ArgumentParser(prog="python scripts/same.py", description=ABOUT)
    parser.add_argument("checkouts", type=Path, nargs="*", metavar="OLD NEW", help="two folders")
    choices = (*VARIANTS, *OTHERS)
    parser.add_argument("--only", choices=choices, metavar="VARIANT", help=f"one of {', '.join(choices)}")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what is made in a new folder (gigabytes)")
    parser.add_argument(
        "--digests", type=Path, metavar="FILE", help="only write the digests of this checkout that tests compare"
    )
    arguments = parser.parse_args(argv)
    checkouts = [path.resolve() for path in arguments.checkouts]
    wrong = _wrong_use(arguments, checkouts)
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="same-")) if arguments.keep is None else arguments.keep.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.yaml").write_text(RECIPE)
    try:
        if arguments.digests is not None:
            stored = stored_digests(_side(ROOT, folder, "here"))
            arguments.digests.write_text(json.dumps(stored, indent=1) + "\n")
            return 0
        old, new = (_side(*both) for both in zip(checkouts, (folder, folder), ("old", "new")))
        return compare(old, new, arguments.only, arguments.keep is not None)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _wrong_use(arguments: argparse.Namespace, checkouts: Sequence[Path]) -> str | None:
    if arguments.keep is not None and arguments.keep.exists():
        return f"--keep {arguments.keep} is there already; name a new folder"
    if arguments.digests is not None:
        return "--digests takes neither checkouts nor --only" if checkouts or arguments.only else None
    if len(checkouts) != 2:
        return "name two checkouts, OLD and NEW"
    odd = [path for path in checkouts if not (path / "gan_kd" / "__main__.py").is_file()]
    return f"{odd[0]} is no checkout of this project: it has no gan_kd/__main__.py" if odd else None


def _side(checkout: Path, folder: Path, name: str) -> Side:
    (folder / name).mkdir()
    return Side(checkout, folder / name)


def compare(old: Side, new: Side, only: str | None, keep: bool) -> int:
    """All checks, or those of one variant, a line each; 0 where all are equal, else 1."""
    failed = 0
    for name, check in _checks(old, new, only, keep):
        started = time.monotonic()
        try:
            result = f"equal ({check()})"
        except (Difference, OSError) as difference:
            failed += 1
            result = f"DIFFERENT: {difference}"
        print(f"{name}: {result} [{time.monotonic() - started:.0f} s]", flush=True)
    print("all equal" if not failed else f"{failed} different")
    return 1 if failed else 0


def _checks(old: Side, new: Side, only: str | None, keep: bool) -> Iterator[tuple[str, Callable[[], str]]]:
    """Names of checks and what makes them."""
    if only in (None, "digests"):
        for part in ("recipes", "data", "batches", "networks"):
            yield part, functools.partial(_digests, old, new, part)
    for variant in VARIANTS:
        if only in (None, variant) or (only == "products" and variant == "plain"):
            yield f"{variant}, metrics.jsonl", functools.partial(_trained, old, new, variant)
            runs = old.made(variant), new.made(variant)
            yield f"{variant}, networks", functools.partial(compare_networks, *runs)
            yield f"{variant}, checkpoints", functools.partial(compare_checkpoints, *runs)
            if variant in STOPPED and only != "products":
                yield f"{variant}, stopped in OLD and resumed in NEW", functools.partial(_resumed, old, new, variant)
            if variant == "plain" and only in (None, "products"):
                yield "detections", functools.partial(_detections, old, new)
                yield "detect", functools.partial(_detect, old, new)
                yield "export", functools.partial(_exports, old, new)
            if not keep:
                for side in (old, new):
                    shutil.rmtree(side.folder / variant, ignore_errors=True)


def _digests(old: Side, new: Side, part: str) -> str:
    return compare_digests(old.digests(part), new.digests(part), part == "recipes")


def _trained(old: Side, new: Side, variant: str) -> str:
    for side in (old, new):
        side.finish(side.train(variant, variant))
    return compare_metrics(old.made(variant), new.made(variant))


def _resumed(old: Side, new: Side, variant: str) -> str:
    """OLD's undisturbed run against one that OLD was stopped in and NEW went on with."""
    stage, undisturbed = STOPPED[variant], old.made(variant)
    where = _stop(old, variant, stage)
    stopped = Side(new.checkout, old.folder)  # in OLD's folder, on OLD's images
    stopped.finish(stopped.train(variant, "stopped", "--resume"))
    run = old.made("stopped")
    found = [compare_metrics(undisturbed, run), compare_networks(undisturbed, run)]
    found.append(compare_checkpoints(undisturbed, run, more=True))
    shutil.rmtree(old.folder / "stopped")
    return f"from {where}; {', '.join(found)}"


def _stop(side: Side, variant: str, stage: str) -> str:
    """Train up to the middle of a stage; the name of the checkpoint there. Difference where no run could be stopped."""
    lines = map(json.loads, (side.made(variant) / "metrics.jsonl").read_text().splitlines())
    records = [number for number, line in enumerate(lines, 1) if (line["stage"], line["kind"]) == (stage, "train")]
    enough = records[-2]  # not in a critic's warm-up, when the student has no moments yet
    for _ in range(3):  # a stop may come too late
        shutil.rmtree(side.folder / "stopped", ignore_errors=True)
        process = side.train(variant, "stopped")
        metrics = side.made("stopped") / "metrics.jsonl"
        while process.poll() is None and not (metrics.is_file() and metrics.read_bytes().count(b"\n") >= enough):
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        side.finish(process)
        newest = max((side.made("stopped") / "checkpoints").iterdir())
        progress = json.loads((newest / "state.json").read_text())["progress"]
        if newest.name.endswith(f"-{stage}") and progress["batch"]:
            return newest.name
    raise Difference(f"no run was stopped in stage {stage}")


def _best(side: Side) -> Path:
    return side.made("plain") / "distilled" / "best.params"


def _detections(old: Side, new: Side) -> str:
    images = sorted((old.folder / "data" / "JPEGImages").iterdir())[:4]
    before, now = (side.digests("detections", params=[_best(old)], images=images) for side in (old, new))
    return compare_digests(before, now, False)


def _detect(old: Side, new: Side) -> str:
    for side in (old, new):
        words = "--params", str(_best(old)), "--out", str(side.folder / "detect"), "--threshold", "0.01"
        side.run("-m", "gan_kd", "detect", str(old.folder / "data" / "JPEGImages"), *words)
    for name in ("detections.json", "images.json"):
        before, now = ((side.folder / "detect" / name).read_bytes() for side in (old, new))
        require(before == now, f"{name} differs")
    return f"{len(json.loads((old.folder / 'detect' / 'detections.json').read_text()))} boxes"


def _exports(old: Side, new: Side) -> str:
    for side in (old, new):
        side.run("-m", "gan_kd", "export", "--params", str(_best(old)), "--out", str(side.folder / "export"))
    return compare_exports(old.folder / "export", new.folder / "export")


def stored_digests(side: Side) -> dict[str, object]:
    """Of one checkout: what no kernel changes (`exact`), and what is the same on one `machine` only (`measured`)."""
    digests = side.digests("recipes", "data", "batches", "networks")
    starts, ends = _EXACT
    exact = {name: value for name, value in digests.items() if name.startswith(starts) or name.endswith(ends)}
    measured = {name: value for name, value in digests.items() if name not in exact}
    side.finish(side.train("plain", "plain"))
    metrics = (side.made("plain") / "metrics.jsonl").read_bytes()
    measured["plain: metrics.jsonl"] = hashlib.sha256(metrics).hexdigest()
    return {"exact": exact, "machine": machine_key(), "measured": measured}


def machine_key() -> str:
    """SHA-256 of the processor's name and the versions of what computes."""
    import cv2
    import mxnet
    import numpy

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    processor = next((line for line in lines if line.startswith("model name")), platform.processor())
    versions = [platform.python_version(), *(module.__version__ for module in (cv2, mxnet, numpy))]
    return hashlib.sha256(repr((processor, versions)).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
