"""Reading and writing .params files: every way such a file can be wrong becomes one sentence.

A .params file has no checksum and MXNet loads NaN without a word, so all of a file is checked before a
weight is set, and its layout before MXNet reads it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.gluon import Constant, Parameter

from gan_kd.errors import UsageError
from gan_kd.gluon import params_file
from gan_kd.system.files import write_file

Arrays = Mapping[str, mx.nd.NDArray]
Parameters = Mapping[str, Parameter]
_OTHER_NAMES = (
    "; it was saved by export, collect_params().save or save_params, whose names depend on how a network was made: "
    "load it into that network and save it by net.save_parameters"
)


def read(path: str | Path, what: str) -> Arrays:
    """The named arrays of a .params file, all of them finite, on the CPU.

    what: the network that the caller expects in the file, for the messages ("the teacher resnet50_v1").
    Raises UsageError where the file is absent, truncated, not a .params file, without names, or not finite.
    """
    if not Path(path).is_file():
        raise UsageError(f"{path}: no such file; it should hold the weights of {what}")
    logging.getLogger("gan_kd").debug("reading %s, the weights of %s", path, what)
    try:
        arrays = params_file.load(path)
    except (mx.MXNetError, ValueError, OSError) as error:
        raise UsageError(
            f"{path} is truncated or not a .params file ({last_line(error)}); it should hold the weights of {what}"
        ) from None
    if not isinstance(arrays, dict) or not arrays:
        raise UsageError(f"{path} holds no named arrays; it should hold the weights of {what}")
    for name, array in arrays.items():
        if not np.isfinite(array.asnumpy()).all():
            raise UsageError(f"{path} cannot be used for {what}: '{name}' holds values that are not finite")
    return arrays


def assign(parameters: Parameters, arrays: Arrays, path: str | Path, what: str) -> None:
    """Sets parameters from the arrays of a file: all, or none and a UsageError with the nearest reason.

    Named as by `save_parameters`, or as `renamed` takes them. Constants are not set but must agree: with other anchors
    a network would decode other boxes and give no error.
    """
    arrays = renamed(parameters, arrays)
    reason = _mismatch(parameters, arrays)
    if reason:
        raise UsageError(f"{path} does not hold the weights of {what}: {reason}")
    for name, parameter in parameters.items():
        if not isinstance(parameter, Constant):
            parameter.set_data(arrays[name].astype(parameter.dtype, copy=False))


def renamed(parameters: Parameters, arrays: Arrays) -> Arrays:
    """The arrays by the names of `parameters`, where Gluon saved them in another way than `save_parameters`.

    `export`, `collect_params().save` and `save_params` (before MXNet 1.3) name a parameter by the scopes in which it
    was made, whose numbers count the networks of that process; the outermost are left aside. A network after GluonCV's
    `reset_class` has the outermost twice.
    """
    if any("." in name or name in parameters for name in arrays):
        return arrays
    theirs = dict(zip(relative(name.partition(":")[2] or name for name in arrays), arrays.values()))
    ours = dict(zip(relative(parameter.name for parameter in parameters.values()), parameters))
    return {ours.get(name, name): array for name, array in theirs.items()}


def relative(names: Iterable[str]) -> list[str]:
    """Names of parameters without the scope that all share, and without an SSD's."""
    given = list(names)
    shared = os.path.commonprefix(given)
    inner = (name[shared.rfind("_") + 1 :] for name in given)
    return [re.sub(r"^(ssd[0-9]+_)+", "", name) for name in inner]


def write(parameters: Parameters, path: str | Path) -> None:
    """Writes parameters under their names to a .params file: complete, or not at all and a RunError.

    The copies of a parameter on several contexts are averaged, as GluonCV saves them. Missing folders are
    made.
    """
    write_file(Path(path), lambda target: fill(parameters, target))


def fill(parameters: Parameters, target: Path) -> None:
    """The same into a file that someone else puts in place (see `files.write_file`). OSError, MXNetError."""
    params_file.save(target, {name: _mean(parameter) for name, parameter in parameters.items()})


def last_line(error: Exception) -> str:
    """The line of a message that says what happened: MXNet puts a stack trace before it."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _mean(parameter: Parameter) -> mx.nd.NDArray:
    copies = [data.as_in_context(mx.cpu()) for data in parameter.list_data()]
    return copies[0] if len(copies) == 1 else mx.nd.add_n(*copies) / len(copies)


def _mismatch(parameters: Parameters, arrays: Arrays) -> str | None:
    missing = [name for name in parameters if name not in arrays]
    if missing:
        other = "" if any("." in name or name in parameters for name in arrays) else _OTHER_NAMES
        return f"{len(missing)} of its {len(parameters)} arrays are missing, first '{missing[0]}'{other}"
    unknown = [name for name in arrays if name not in parameters]
    if unknown:
        return f"the file has {len(unknown)} arrays too many, first '{unknown[0]}'"
    for name, parameter in parameters.items():
        there, here = tuple(arrays[name].shape), tuple(parameter.shape)
        if there != here:
            return f"'{name}' has the shape {there} there and {here} here" + _class_counts(
                name, there, here, parameters
            )
        if isinstance(parameter, Constant):
            constant, saved = parameter.data(parameter.list_ctx()[0]).asnumpy(), arrays[name].asnumpy()
            # In the file's precision: anchors that float16 rounds are the same ones.
            if not np.array_equal(saved, constant.astype(saved.dtype)):
                return f"'{name}' differs: the file is for another input size or other anchors"
    return None


def _class_counts(name: str, there: tuple[int, ...], here: tuple[int, ...], parameters: Parameters) -> str:
    """What the shapes of a class predictor mean: an anchor has classes + 1 filters, and 4 for its box."""
    boxes = parameters.get(name.replace("class_predictors", "box_predictors"))
    if not name.startswith("class_predictors.") or boxes is None:
        return ""
    anchors = boxes.shape[0] // 4
    return f" ({there[0] // anchors - 1} classes there, {here[0] // anchors - 1} here)"
