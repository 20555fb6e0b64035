"""JSON as we write it: without the words NaN and Infinity, which Python writes and the standard does not know."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def dumps(value: Any, indent: int | None = None) -> str:
    """The JSON text of a value, null for a number that is not finite; else the same as `json.dumps`."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, allow_nan=False)


def with_nan(value: Any) -> Any:
    """What was read from JSON, nan for null: for numbers alone, which `dumps` wrote."""
    return _replaced(value, lambda leaf: math.nan if leaf is None else leaf)


def _finite(value: Any) -> Any:
    return _replaced(value, lambda leaf: None if isinstance(leaf, float) and not math.isfinite(leaf) else leaf)


def _replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(item, change) for item in value]
    return change(value)
