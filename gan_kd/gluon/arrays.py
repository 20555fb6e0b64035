"""Parameters as arrays by name, for checkpoints, on one device or several."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from mxnet import nd
from mxnet.gluon import Constant, Parameter
from mxnet.ndarray import NDArray

from gan_kd.distributed.cluster import here

Value = TypeVar("Value")


def prefixed(prefix: str, entries: Mapping[str, Value]) -> dict[str, Value]:
    """The same mapping with `prefix` and a slash before every key."""
    return {f"{prefix}/{key}": value for key, value in entries.items()}


def stripped(prefix: str, entries: Mapping[str, Value]) -> dict[str, Value]:
    """The entries below `prefix`, without it: the inverse of `prefixed`."""
    return {key[len(prefix) + 1 :]: value for key, value in entries.items() if key.startswith(prefix + "/")}


def values(parameters: Mapping[str, Parameter]) -> dict[str, NDArray]:
    """What `set_values` needs: each parameter once, BatchNorm's statistics, which devices do not share, on each.

    Devices count on from worker to worker.
    """
    arrays = {name: parameter.list_data()[0] for name, parameter in parameters.items()}
    copies = [
        (name, device, data)
        for name, parameter in parameters.items()
        if _is_statistic(parameter)
        for device, data in enumerate(parameter.list_data())
    ]
    devices = 1 + max((device for _, device, _ in copies), default=0)
    for worker, gathered in enumerate(here().gather("statistics", [data for _, _, data in copies])):
        for (name, device, _), data in zip(copies, gathered):
            number = worker * devices + device
            arrays[f"{name}@{number}" if number else name] = data
    return arrays


def set_values(parameters: Mapping[str, Parameter], arrays: Mapping[str, NDArray]) -> None:
    """Put back what `values` gave. With other devices than before, all start from the first one's statistics."""
    for name, parameter in parameters.items():
        if isinstance(parameter, Constant):
            continue
        parameter.set_data(arrays[name])
        for device, data in enumerate(parameter.list_data()):
            number = here().rank * len(parameter.list_data()) + device
            if f"{name}@{number}" in arrays:
                arrays[f"{name}@{number}"].copyto(data)


def average_statistics(parameters: Iterable[Parameter]) -> None:
    """Give every device of every worker the mean of BatchNorm's statistics: what is evaluated is what is saved."""
    for parameter in parameters:
        copies = parameter.list_data()
        number = len(copies) * here().size
        if _is_statistic(parameter) and number > 1:
            total = nd.add_n(*[data.as_in_context(copies[0].context) for data in copies])
            parameter.set_data(here().sum(parameter.name, total) / number)


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
