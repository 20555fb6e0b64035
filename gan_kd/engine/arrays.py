"""Parameters as arrays by name, for checkpoints, on one device or several."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from mxnet import nd
from mxnet.gluon import Constant, Parameter
from mxnet.ndarray import NDArray

Value = TypeVar("Value")


def prefixed(prefix: str, entries: Mapping[str, Value]) -> dict[str, Value]:
    """The same mapping with `prefix` and a slash before every key."""
    return {f"{prefix}/{key}": value for key, value in entries.items()}


def stripped(prefix: str, entries: Mapping[str, Value]) -> dict[str, Value]:
    """The entries below `prefix`, without it: the inverse of `prefixed`."""
    return {key[len(prefix) + 1 :]: value for key, value in entries.items() if key.startswith(prefix + "/")}


def values(parameters: Mapping[str, Parameter]) -> dict[str, NDArray]:
    """What `set_values` needs: each parameter once, BatchNorm's statistics, which devices do not share, on each."""
    arrays = {}
    for name, parameter in parameters.items():
        first, *others = parameter.list_data()
        arrays[name] = first
        if _is_statistic(parameter):
            arrays.update({f"{name}@{device}": data for device, data in enumerate(others, 1)})
    return arrays


def set_values(parameters: Mapping[str, Parameter], arrays: Mapping[str, NDArray]) -> None:
    """Put back what `values` gave. With other devices than before, all start from the first one's statistics."""
    for name, parameter in parameters.items():
        if isinstance(parameter, Constant):
            continue
        parameter.set_data(arrays[name])
        for device, data in enumerate(parameter.list_data()):
            if f"{name}@{device}" in arrays:
                arrays[f"{name}@{device}"].copyto(data)


def average_statistics(parameters: Iterable[Parameter]) -> None:
    """Give every device the mean of BatchNorm's statistics, so that what is evaluated is what is saved."""
    for parameter in parameters:
        copies = parameter.list_data()
        if _is_statistic(parameter) and len(copies) > 1:
            parameter.set_data(nd.add_n(*[data.as_in_context(copies[0].context) for data in copies]) / len(copies))


@contextlib.contextmanager
def statistics_kept(parameters: Iterable[Parameter]) -> Iterator[None]:
    """Afterwards BatchNorm's statistics are on every device what they were before."""
    before = [(data, data.copy()) for p in parameters if _is_statistic(p) for data in p.list_data()]
    try:
        yield
    finally:
        for data, copy in before:
            copy.copyto(data)


def _is_statistic(parameter: Parameter) -> bool:
    """BatchNorm's running mean and variance: no gradient, but no constant either."""
    return parameter.name.endswith(("running_mean", "running_var", "moving_mean", "moving_var"))
