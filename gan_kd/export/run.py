"""The export: every form that is asked for, checked before one of its files is put in place."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from gan_kd.compat import threads
from gan_kd.data.dataset import DetectionDataset, open_split
from gan_kd.data.pixels import MEAN, STD
from gan_kd.data.sizes import Size, Sizes
from gan_kd.detectors.families import family
from gan_kd.detectors.saved import load_detector, require_classes
from gan_kd.errors import RunError, UsageError
from gan_kd.evaluation import evaluate
from gan_kd.export import compare, forms, sources, table
from gan_kd.export.files import RECORD
from gan_kd.export.mxnet import INPUT
from gan_kd.recipe import Recipe
from gan_kd.recipe.families import FAMILIES, OLDEST
from gan_kd.system.files import write_json
from gan_kd.system.machine import machine
from gan_kd.system.version import commit

CHECKED = 50  # images at most on which ONNX and MXNet are compared
CALIBRATION = 128  # images at most that int8's ranges are taken from: all of them are in memory
_SOURCE = (
    "network",
    "backbone",
    "head",
    "head_backbone",
    "adapters",
    "recipe",
    "seed",
    "stage",
    "epoch",
    "commit",
    "sha256",
    "recipe_hash",
    "teacher",
    "distillers",
)


def export(
    params: Path,
    out: Path,
    formats: Sequence[str] = ("mxnet", "onnx"),
    images: Sequence[Path] = (),
    calibrate: Sequence[Path] = (),
    recipe: Recipe | None = None,
    teacher: Path | None = None,
    bounds: compare.Bounds = compare.BOUNDS,
    rounds: int = table.ROUNDS,
    command: str = "",
) -> dict[str, Any]:
    """Write the network of a params file into a folder in other forms; returns what export.json then holds.

    formats: of mxnet, onnx, int8. images: files and folders on which ONNX and MXNet are compared (none: the recipe's
    val split, else the calibration images, else drawn ones). calibrate: the same for the ranges of int8 (none: the
    recipe's train split). recipe: also measures mAP on its val split. teacher: a params file for a row of its own.
    rounds: timed passes. command: to be noted.

    UsageError for wrong input. RunError where a form does not do what the network does, or where nothing can be
    written: no file is there then that was not before.
    """
    detector, meta = load_detector(params)
    kind = meta.get("detector", OLDEST)
    _require_forms(params, kind, formats)
    if "int8" in formats and not calibrate and recipe is None:
        raise UsageError("int8 needs images: name some with --calibrate, or a recipe whose training images to take")
    evaluate.check_finite(detector)
    val = open_split(recipe.data, "val") if recipe is not None else None
    if val is not None:
        require_classes(params, meta, val.classes)
    name, checks = f"{kind}_{meta['size']}_{meta['backbone']}", []
    with _staged(out) as folder, tempfile.TemporaryDirectory() as scratch:
        pixels, which = _compared(images, calibrate, val, detector.sizes)
        place = folder if "mxnet" in formats else Path(scratch)
        student = forms.as_symbol(_named(meta), detector, place / name, pixels)
        rows = [student]
        if "onnx" in formats:
            plain, suppressing = folder / f"{name}.onnx", folder / f"{name}-nms.onnx"
            rows += forms.as_onnx(student, detector, plain, suppressing, pixels)
            checks.append(f"{compare.require_alike(detector, plain, suppressing, pixels, bounds)}; images: {which}")
        if "int8" in formats:
            ranges = _ranges(calibrate, recipe, detector.sizes)
            rows.append(forms.as_int8(student, detector, folder / f"{name}-int8", ranges, pixels))
            checks.append(f"int8 was calibrated on {len(ranges)} images; its file keeps float32 weights")
        if teacher is not None:
            net, about = load_detector(teacher)
            pixels, _ = _compared(images, calibrate, val, net.sizes)
            rows.insert(0, forms.as_symbol(_named(about), net, Path(scratch, "teacher"), pixels))
        measured = table.measure(rows, student, rounds)
        if recipe is not None and val is not None:
            for row, form in zip(measured, rows):
                row["map"] = _map(form, recipe, val)
        record = {
            "name": name,
            "source": {key: meta[key] for key in _SOURCE if key in meta},
            "input": _input(detector.sizes.typical),
            "classes": meta["classes"],
            "forms": measured,
            "checks": checks,
            "metric": recipe.eval.metric if recipe is not None else None,
            "batch": forms.BATCH,
            "rounds": rounds,
            "threads": threads(),
            "command": command,
            "commit": commit(),
            "machine": machine(),
        }
        write_json(folder / RECORD, record)
        (folder / "export.md").write_text(table.markdown(record), encoding="utf-8")
    return record


def _require_forms(params: Path, kind: str, formats: Sequence[str]) -> None:
    """UsageError where detectors of this family cannot be written in one of the forms."""
    there, why = family(kind).FORMS, FAMILIES[kind].unwritten
    missing = [f"{form} ({why[form]})" if form in why else form for form in formats if form not in there]
    if missing:
        raise UsageError(
            f"{params}: a detector of the family {kind} cannot be written as {', '.join(missing)}; it is written as "
            f"{', '.join(there)}"
        )


def _named(meta: dict[str, Any]) -> str:
    return f"{meta['network']} {meta['backbone']}"


def _compared(
    images: Sequence[Path], calibrate: Sequence[Path], val: DetectionDataset | None, sizes: Sizes
) -> tuple[np.ndarray, str]:
    """The images on which the runtimes are compared, (N,3,S,S), and what kind they are."""
    if images or (val is None and calibrate):
        return sources.pixels(sources.opened(images or calibrate), CHECKED, sizes), "those given"
    if val is not None:
        return sources.pixels(val, CHECKED, sizes), "of the validation split"
    return sources.drawn(CHECKED, sizes), "drawn"


def _ranges(calibrate: Sequence[Path], recipe: Recipe | None, sizes: Sizes) -> np.ndarray:
    dataset = open_split(recipe.data, "train") if recipe is not None and not calibrate else sources.opened(calibrate)
    return sources.pixels(dataset, CALIBRATION, sizes)


def _map(form: forms.Form, recipe: Recipe, val: DetectionDataset) -> float | None:
    """mAP in percent; None where the form gives no detections."""
    if form.detect is None:
        return None
    workers = recipe.train.num_workers
    return evaluate.measure(form.detect, val, [mx.cpu()], recipe.eval, form.sizes, workers).map


def _input(size: Size) -> dict[str, Any]:
    """What the network takes: (value - mean) / std of each colour, values from 0 to 255."""
    mean, std = ([round(value, 4) for value in (255 * part).tolist()] for part in (MEAN, STD))
    return {"name": INPUT, "shape": ["N", 3, *size], "colours": "RGB", "mean": mean, "std": std}


@contextlib.contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A folder inside `out` whose files are moved there at the end; none of them is, where an exception ends it."""
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".export-", dir=out))
    except OSError as error:
        raise RunError(f"--out {out}: no file can be written there ({error.strerror}); choose another") from error
    try:
        yield folder
        for file in sorted(folder.iterdir()):
            os.replace(file, out / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if made:
            with contextlib.suppress(OSError):  # it holds files
                out.rmdir()
