#!/usr/bin/env python3
"""Digests of what a checkout makes before it trains: scripts/same.py runs this file in each of the two it compares.

Functions are found by their names, wherever a checkout keeps them. Where one has another signature in a newer checkout,
both ways of calling it belong here.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gan_kd
from gan_kd import compat  # noqa: F401

#: Drawn images, enough for some batches.
DRAWN = ["data.size=64", "data.demo.train=16", "data.demo.test=4"]
RANDOM = ["teacher.init=random", "student.init=random", "teacher.weights=null"]
#: Recipes whose networks are drawn: each teacher's family, each of the paper's students, at the least input that fits.
WEIGHTS = {
    "demo": ["data.size=64"],
    "voc/mobilenet1.0-resnet50_v1": ["data.size=64", *RANDOM],
    "voc/resnet18_v1-resnet101_v2": ["data.size=64", *RANDOM],
    "voc/mobilenetv2_1.0-vgg16_atrous": ["data.size=300", *RANDOM],
}
Digests = Iterator[tuple[str, str]]


def main() -> None:
    """Write the digests of the parts that the arguments name, as JSON: {"part: name": sha256}."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    parser.add_argument("--root", type=Path, required=True, help="where the images are drawn")
    parser.add_argument("--params", type=Path, help="a params file, for the detections")
    parser.add_argument("--images", type=Path, nargs="*", help="files to detect in")
    arguments = parser.parse_args()
    found = {f"{part}: {name}": digest for part in arguments.parts for name, digest in PARTS[part](arguments)}
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def find(name: str, older: str | None = None) -> Any:
    """The function or class of this name that a module of the package defines. LookupError where there is not one.

    older: its name in checkouts that do not have the other.
    """
    root = Path(gan_kd.__file__).parent
    names = "|".join(filter(None, (name, older)))
    defines = re.compile(rf"^(?:class|def) ({names})\b", re.MULTILINE)
    files = [file for file in sorted(root.rglob("*.py")) if defines.search(file.read_text(encoding="utf-8"))]
    if len(files) != 1:
        raise LookupError(f"{name} is defined in {len(files)} modules of {root}: name the one in scripts/same_probe.py")
    module = importlib.import_module(".".join(files[0].relative_to(root.parent).with_suffix("").parts))
    return getattr(module, name, None) or getattr(module, str(older))


def _anchors(size: int, classes: Sequence[str]) -> Any:
    """Of a small SSD."""
    try:
        from gan_kd.detectors.ssd import network, zoo
    except ImportError:  # checkouts before detectors had rooms
        module = importlib.import_module
        network, zoo = module("gan_kd.models.ssd"), module("gan_kd.models.zoo")
    extractor, head = network.split(zoo.build("mobilenet0.25", size, classes))
    return head.anchors(extractor.sizes)


def _compared(batch: Any) -> Sequence[Any]:
    """Images, classes and boxes; checkouts before batches carried the truth had these alone."""
    return (batch.images, *batch.targets) if hasattr(batch, "targets") else batch


def recipes(_: argparse.Namespace) -> Digests:
    """The hash of every recipe."""
    from gan_kd.recipe import load, names, recipe_hash

    for name in names():
        yield name, recipe_hash(load(name))


def data(arguments: argparse.Namespace) -> Digests:
    """Every file of the drawn images; the folder is made where it is not there."""
    _drawn(arguments.root, "flip")
    for file in sorted(path for path in arguments.root.rglob("*") if path.is_file()):
        yield str(file.relative_to(arguments.root)), hashlib.sha256(file.read_bytes()).hexdigest()


def batches(arguments: argparse.Namespace) -> Digests:
    """Two epochs of training batches with each augmentation, and the test split."""
    loader, transform = find("Loader"), find("SSDTrainTransform", "TrainTransform")
    for augment in ("flip", "ssd"):
        recipe, (train, val) = _drawn(arguments.root, augment)
        anchors = _anchors(recipe.data.size, train.classes)
        drawn = transform(recipe.data.size, anchors, augment)
        yield f"{augment} anchors", _digest([anchors])
        with loader(train, drawn, 4, 0, recipe.train.seed, train=True) as epochs:
            for epoch in (0, 1):
                made = [[array.copy() for array in _compared(batch)] for batch in epochs.epoch(epoch)]
                yield f"{augment} epoch {epoch} order", _digest([epochs.order(epoch)])
                for what, arrays in zip(("images", "classes", "boxes"), zip(*made)):
                    yield f"{augment} epoch {epoch} {what}", _digest(arrays)
    size = recipe.data.size
    with contextlib.suppress(LookupError):  # until checkouts knew other inputs than squares
        size = find("Square")(size)
    with loader(val, find("ValTransform")(size), 4, 0, 0, train=False) as epochs:
        yield "test images", _digest([batch.images.copy() for batch in epochs.epoch(0)])


def networks(_: argparse.Namespace) -> Digests:
    """Of each network and distiller of some recipes names, order and values of the first parameters, and the graph."""
    for name, made, distillers in _networks():
        yield f"{name} weights", _digest_named(_values(made.detector.weights()))
        yield f"{name} graph", _graph(made.detector)
        if made.bridge is not None:
            yield f"{name} bridge weights", _digest_named(_values(made.bridge._collect_params_with_prefix()))
        for distiller in distillers:
            state = {key: array for key, array in distiller.state().items() if not key.startswith("optimiser/")}
            yield f"{name} {distiller.name} weights", _digest_named(state)


def detections(arguments: argparse.Namespace) -> Digests:
    """The rows that `gan_kd.api` finds with a params file, to the bit."""
    from gan_kd import api

    detector = api.load(arguments.params)
    for file, rows in zip(arguments.images, detector(*arguments.images)):
        yield f"{file.name} ({len(rows)})", _digest([rows])


PARTS: dict[str, Callable[[argparse.Namespace], Digests]] = {
    part.__name__: part for part in (recipes, data, batches, networks, detections)
}


def _drawn(root: Path, augment: str) -> tuple[Any, Any]:
    """A recipe of drawn images, and its train and test split."""
    from gan_kd.recipe import load

    recipe = load("demo", [*DRAWN, f"data.augment={augment}", f"data.root={json.dumps(str(root))}"])
    return recipe, find("preflight")(recipe.data)


def _networks() -> Iterator[tuple[str, Any, list[Any]]]:
    """Name, parts, and the distillers of the first stage that has some; weights are drawn, not loaded."""
    import mxnet as mx

    from gan_kd.recipe import load

    for name, settings in WEIGHTS.items():
        recipe = load(name, settings)
        classes = find("class_names")(recipe.data)
        teacher = find("build_teacher")(recipe, classes)
        yield f"{name} teacher", SimpleNamespace(detector=teacher, bridge=None), []
        stage = next(stage for stage in recipe.stages.values() if stage.distillers)
        for network in ("baseline", "control", "distilled"):
            made = find("build_student")(recipe, classes, network, teacher)
            distillers = find("build_distillers")(recipe, stage, made, [mx.cpu()]) if network == "distilled" else []
            yield f"{name} {network}", made, distillers


def _values(parameters: dict[str, Any]) -> dict[str, Any]:
    return {key: parameter.data() for key, parameter in parameters.items()}


def _graph(detector: Any) -> str:
    """SHA-256 of a detector's graph, its nodes numbered and its weights named as in files."""
    import mxnet as mx

    names = {parameter.name: key for key, parameter in detector.weights().items()}
    graph = json.loads(mx.sym.Group(list(detector(mx.sym.var("data")))).tojson())
    for number, node in enumerate(graph["nodes"]):
        node["name"] = names.get(node["name"], str(number))
        node.get("attrs", {}).pop("__init__", None)  # that of a constant has the number of an object
    return hashlib.sha256(json.dumps(graph, sort_keys=True).encode()).hexdigest()


def _digest(arrays: Iterable[Any]) -> str:
    """SHA-256 of NumPy arrays: type, shape and bytes of each."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _digest_named(arrays: dict[str, Any]) -> str:
    """SHA-256 of MXNet arrays with their names, in order."""
    values = _digest(array.asnumpy() for array in arrays.values())
    return hashlib.sha256(f"{list(arrays)} {values}".encode()).hexdigest()


if __name__ == "__main__":
    main()
