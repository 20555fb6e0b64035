"""An export read back: what runs one of its forms, where `detect` and `eval` otherwise run a params file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
from mxnet.ndarray import NDArray

from gan_kd.data.dataset import open_split
from gan_kd.data.loader import worker_policy
from gan_kd.data.sizes import Square
from gan_kd.detectors.saved import require_classes
from gan_kd.errors import UsageError, printable
from gan_kd.evaluation.evaluate import SPEED_BATCH, Detect, as_rows, described, images_per_s, measure
from gan_kd.export import mxnet as symbol
from gan_kd.export.files import RECORD, is_form
from gan_kd.gluon import params_file
from gan_kd.gluon.weights import last_line
from gan_kd.recipe import Recipe
from gan_kd.system.files import sha256
from gan_kd.system.untrusted import file_within, read_json

# What a folder alone stands for: the first of these forms that is there.
_FIRST = (symbol.GRAPH, "-nms.onnx")
_LARGEST_SIDE = 10_000  # px
_WANTED = {"network": str, "backbone": str, "head": str, "head_backbone": str, "sha256": str, "classes": list}


class Exported(NamedTuple):
    """A form of an export. `files`: its own. `about`: its network, by best.json's keys, of which there are fewer.

    parameters, macs: as of `gluon.macs.count`. detect: images (N,3,S,S) on the CPU -> (N,K,6) as `detect_rows`.
    """

    files: list[Path]
    about: dict[str, Any]
    sizes: Square
    parameters: int
    macs: int
    detect: Detect


def load_exported(path: Path) -> Exported:
    """The form in a file of an export, or the first of MXNet's symbol, ONNX and int8 in an export's folder.

    UsageError where there is none, where it gives no detections, or where it was changed since it was written.
    """
    folder = path if path.is_dir() else path.parent
    record = _record(folder)
    try:
        form = _chosen(path, folder, record["forms"])
        files = [file_within(folder, name) for name in form["files"]]
        about = {**record["source"], "size": record["input"]["shape"][2], "classes": record["classes"]}
        counted = int(form["parameters"]), int(form["macs"])
        wrong = [key for key, kind in _WANTED.items() if type(about[key]) is not kind]
        if wrong or type(about["size"]) is not int or not 0 < about["size"] < _LARGEST_SIDE:
            raise ValueError(f"{(*wrong, 'size')[0]} is none")
        if not about["classes"] or not all(isinstance(name, str) for name in about["classes"]):
            raise ValueError("the classes are none")
        digests = [form.get("sha256", {}).get(name) for name in form["files"]]  # files from before it was noted: None
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UsageError(
            f"{folder / RECORD}: not the record of an export ({printable(str(error))}); export again"
        ) from None
    for file, digest in zip(files, digests):
        if not file.is_file():
            raise UsageError(f"{file}: no such file, though {RECORD} names it; copy the whole folder")
        if digest not in (None, sha256(file)):
            raise UsageError(f"{file}: truncated or changed since it was exported; copy it again")
    detect = _onnx(files[0]) if files[0].suffix == ".onnx" else _symbol(files)
    return Exported(files, about, Square(about["size"]), *counted, detect)


def evaluate_exported(recipe: Recipe, path: Path) -> dict[str, Any]:
    """Measure an export on the recipe's val split: as `evaluate_params` does a params file, on the CPU."""
    net, cpu = load_exported(path), mx.cpu()
    dataset = open_split(recipe.data, "val")
    require_classes(path, net.about, dataset.classes)
    workers, policy = recipe.train.num_workers, worker_policy(recipe.train)
    result = measure(net.detect, dataset, [cpu], recipe.eval, net.sizes, workers, policy=policy)
    noise = mx.nd.array(np.random.default_rng(0).standard_normal((SPEED_BATCH, 3, *net.sizes.typical)))
    return {
        **described(recipe, path, net.about, dataset, result, [cpu]),
        "parameters": net.parameters,
        "macs": net.macs,
        "images_per_s": images_per_s(lambda: net.detect(noise), SPEED_BATCH),
        "speed_batch": SPEED_BATCH,
    }


def _record(folder: Path) -> Mapping[str, Any]:
    try:
        record = read_json(folder / RECORD)
    except FileNotFoundError:
        raise UsageError(f"{folder}: holds no {RECORD}; name a params file, or what `export` wrote") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / RECORD}: not JSON ({error}); export again") from None
    if not isinstance(record, dict):
        raise UsageError(f"{folder / RECORD}: not the record of an export; export again")
    return record


def _chosen(path: Path, folder: Path, forms: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The form of a file, or the first of a folder. UsageError where it gives no detections, or is of no form."""
    if path != folder:
        found = [form for form in forms if path.name in form["files"]]
        if not found:
            raise UsageError(f"{path}: {RECORD} names no such file; take a file that it names")
        if path.suffix == ".onnx" and not path.name.endswith(_FIRST[1]):
            raise UsageError(f"{path}: gives scores, but no detections; take {path.stem}-nms.onnx")
        return found[0]
    there = [form for form in forms if (folder / form["files"][0]).is_file() and is_form(form["files"][0])]
    if not there:
        raise UsageError(f"{folder}: holds no form that gives detections; export it with --format mxnet")
    return min(there, key=lambda form: ("int8" in form["name"], not form["files"][0].endswith(_FIRST[0])))


def _symbol(files: list[Path]) -> Detect:
    """MXNet's two files on the CPU."""
    os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")  # int8's fused graph: a line on stderr
    graph, params = files[0], files[-1]
    try:
        params_file.inspect(params)
        net = symbol.load(graph.with_name(graph.name[: -len(symbol.GRAPH)]))
    except (mx.MXNetError, ValueError, OSError, AssertionError) as error:
        raise UsageError(f"{graph} and {params.name} are truncated or not MXNet's ({last_line(error)})") from None

    def detect(images: NDArray, *_: NDArray) -> NDArray:
        return as_rows(*net(images))

    return detect


def _onnx(file: Path) -> Detect:
    """An .onnx file with suppression, in onnxruntime."""
    from gan_kd.export import onnx

    try:
        net = onnx.session(file)
    except Exception as error:  # onnxruntime's own have no common base but this
        raise UsageError(f"{file} is truncated or no ONNX file ({printable(last_line(error))})") from None

    def detect(images: NDArray, *_: NDArray) -> NDArray:
        ids, scores, boxes = onnx.run(net, images.asnumpy())
        return mx.nd.array(np.concatenate((boxes, ids, scores), axis=2))

    return detect
