"""Facts of each detector family that are needed before MXNet is loaded."""

from __future__ import annotations

from typing import NamedTuple


class Facts(NamedTuple):
    """What a family offers to distillers."""

    #: Where its maps stand, as `Level.place`.
    places: tuple[str, ...]
    #: What it can give them beside maps, as `Distiller.needs`.
    gives: tuple[str, ...]


FACTS = {"ssd": Facts(("neck",), ("outputs",))}
