"""A knob of a typed file (a recipe, a study): a dataclass field with its documentation and what is checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


def knob(
    doc: str,
    default: Any = dataclasses.MISSING,
    *,
    make: Callable[[], Any] | None = None,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    in_hash: bool | None = True,
    aliases: Mapping[str, str] | None = None,
    hashed_as: Mapping[str, str] | None = None,
) -> Any:
    """A dataclass field with its documentation and what is checked: the values allowed, bounds of a number.

    Without a default and `make` (the factory of one) the recipe must give the key. Choices and bounds of a
    list hold for its elements. `in_hash` False marks what changes neither parameters nor mAP (see
    recipe_hash); None a later knob, which counts where it is not the default, so that older hashes hold.
    `aliases`: other words for a choice, by which older recipes may name it. `hashed_as`: the words by which renamed
    choices count in the hash, so that older hashes hold.
    """
    bounds = {"least": least, "above": above, "most": most, "below": below}
    metadata = {
        "doc": doc, "choices": choices, "bounds": bounds, "in_hash": in_hash,
        "aliases": dict(aliases or {}), "hashed_as": dict(hashed_as or {}),
    }  # fmt: skip
    if make is not None:
        return dataclasses.field(default_factory=make, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def without_aliases(node: Any) -> None:
    """Put the choice itself where a knob of a new dataclass holds an alias of it."""
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if isinstance(value, str) and value in field.metadata["aliases"]:
            object.__setattr__(node, field.name, field.metadata["aliases"][value])
