"""Whether the files of two runs or two exports hold the same numbers to the bit; the first difference otherwise."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_kd import compat  # noqa: F401  (before MXNet is imported)

# isort: split

import mxnet as mx
import numpy as np

#: Of JSON files what depends on the training alone, not on the commit, the clock or the machine.
_NUMBERS = {
    "eval.json": ("map", "ap", "summary", "last_map"),
    "state.json": ("progress", "metrics_bytes", "teacher_map", "origin"),
}
_OF_A_COMMIT = ("commit", "sha256")  # in best.json; the params file holds a description with the commit too
_MOMENTS = "optimiser"  # part of a key of a checkpoint


class Difference(Exception):
    """The first thing that is not the same."""


def require(holds: bool, otherwise: str) -> None:
    """Difference with these words where it does not hold."""
    if not holds:
        raise Difference(otherwise)


def compare_metrics(old: Path, new: Path) -> str:
    """metrics.jsonl of two runs, byte by byte; how much was compared."""
    lines = [(run / "metrics.jsonl").read_bytes().splitlines(keepends=True) for run in (old, new)]
    for number, (before, now) in enumerate(zip(*lines), 1):
        require(before == now, f"line {number} is {_text(now)} instead of {_text(before)}")
    require(len(lines[0]) == len(lines[1]), f"{len(lines[1])} lines instead of {len(lines[0])}")
    return f"{len(lines[0])} lines"


def compare_networks(old: Path, new: Path) -> str:
    """Best weights, their descriptions and what was measured of them; how much was compared."""
    names = _names(old, new, "*/best.params")
    require(bool(names), "there is no best.params")
    arrays = sum(compare_arrays(old / name, new / name) for name in names)
    for name in names:
        before, now = (_description((run / name).with_suffix(".json")) for run in (old, new))
        for key in sorted(before.keys() - _OF_A_COMMIT):
            require(key in now and before[key] == now[key], f"{name}: its best.json has another {key}")
    _compare_json(old, new, _names(old, new, "*/eval.json"))
    return f"{len(names)} params files, {arrays} arrays"


def _description(file: Path) -> Any:
    """A best.json without the hash of the teacher's file, whose arrays are compared: its description may hold more."""
    values = _json(file)
    if isinstance(values.get("teacher"), dict):
        values["teacher"] = {key: value for key, value in values["teacher"].items() if key != "sha256"}
    return values


def compare_checkpoints(old: Path, new: Path, more: bool = False) -> str:
    """All checkpoints; how much was compared. more: the new run may have others, too, having been stopped."""
    names = _names(old, new, "checkpoints/*/arrays.params", more)
    require(bool(names), "there is no checkpoint")
    arrays = sum(compare_arrays(old / name, new / name) for name in names)
    _compare_json(old, new, [str(Path(name).with_name("state.json")) for name in names])
    return f"{len(names)} checkpoints, {arrays} arrays"


def compare_arrays(old: Path, new: Path) -> int:
    """Number of arrays of two params files, which are the same, with the same names in the same order.

    An optimiser's moments may be named otherwise, as in checkpoints older than those names: then all of them together
    have to be the same. That each belongs to its parameter is seen where a run is resumed.
    """
    name = f"{new.parent.name}/{new.name}"
    before, now = (_load(file) for file in (old, new))
    fixed, others = ([key for key in arrays if _MOMENTS not in key.split("/")] for arrays in (before, now))
    require(fixed == others, f"{name}: other arrays, or in another order: {_odd(fixed, others)}")
    renamed = before.keys() != now.keys()
    for key in fixed if renamed else before:
        require(_digest(before[key]) == _digest(now[key]), f"{name}: {key} differs")
    if renamed:
        moments = [
            Counter(_moment(key, a) for key, a in arrays.items() if key not in fixed) for arrays in (before, now)
        ]
        require(moments[0] == moments[1], f"{name}: the optimisers' moments differ")
    return len(before)


def compare_exports(old: Path, new: Path) -> str:
    """MXNet's and ONNX's files of two exports but for the names inside; which were compared."""
    kinds = {"*-symbol.json": symbol, "*.params": _arrays, "*.onnx": onnx_graph}
    found = []
    for pattern, content in kinds.items():
        names = _names(old, new, pattern)
        require(bool(names), f"there is no {pattern}")
        for name in names:
            require(content(old / name) == content(new / name), f"{name} differs")
        found += names
    return ", ".join(found)


def symbol(file: Path) -> Any:
    """An MXNet graph with numbers for names."""
    graph = json.loads(file.read_text())
    for number, node in enumerate(graph["nodes"]):
        node["name"] = number
        node.get("attrs", {}).pop("__init__", None)  # that of a constant has the number of an object
    return graph


def onnx_graph(file: Path) -> bytes:
    """An ONNX model with numbers for the names of what is neither input nor output."""
    import onnx

    model = onnx.load(str(file))
    graph = model.graph
    numbers = {value.name: value.name for value in (*graph.input, *graph.output)} | {"": ""}
    for node in graph.node:
        node.name = ""
        for names in (node.input, node.output):
            names[:] = [numbers.setdefault(name, str(len(numbers))) for name in names]
    for value in (*graph.initializer, *graph.value_info):
        value.name = numbers.setdefault(value.name, str(len(numbers)))
    return model.SerializeToString(deterministic=True)


def compare_digests(old: dict[str, str], new: dict[str, str], both: bool) -> str:
    """Digests by name; how many were compared. both: what only one side has is no difference."""
    require(both or old.keys() == new.keys(), f"only one of them has {_odd(list(old), list(new))}")
    shared = [name for name in old if name in new]
    require(bool(shared), "there is nothing that both have")
    for name in shared:
        require(old[name] == new[name], f"{name} differs")
    return str(len(shared))


def _names(old: Path, new: Path, pattern: str, more: bool = False) -> list[str]:
    """Paths that match in both folders. Difference where only one has them; with `more` the new one may."""
    before, now = ({str(path.relative_to(folder)) for path in folder.glob(pattern)} for folder in (old, new))
    odd = before - now if more else before ^ now
    require(not odd, f"only one of the two has {', '.join(sorted(odd))}")
    return sorted(before)


def _compare_json(old: Path, new: Path, names: Sequence[str]) -> None:
    for name in names:
        before, now = (_json(run / name) for run in (old, new))
        for key in _NUMBERS[Path(name).name]:
            require(before.get(key) == now.get(key), f"{name}: {key} differs")


def _load(file: Path) -> dict[str, np.ndarray]:
    return {key: array.asnumpy() for key, array in mx.nd.load(str(file)).items()}


def _arrays(file: Path) -> list[str]:
    return [_digest(array) for array in _load(file).values()]


def _moment(key: str, array: np.ndarray) -> tuple[str, str]:
    """Which moment of which optimiser, and what it holds."""
    optimiser = key.split("/")[0]
    return f"{optimiser} {key.rpartition('.')[2]}", _digest(array)


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest()


def _json(file: Path) -> Any:
    return json.loads(file.read_text())


def _odd(one: list[str], other: list[str]) -> str:
    odd = sorted(set(one) ^ set(other)) or [f"{a} for {b}" for a, b in zip(other, one) if a != b]
    return ", ".join(odd[:3])


def _text(line: bytes) -> str:
    return line.decode(errors="replace").strip()
