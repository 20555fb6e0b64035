"""What detectors of every family have in common."""

from __future__ import annotations

from typing import NamedTuple


class Level(NamedTuple):
    """One of the maps that an extractor gives."""

    #: Where it stands: "backbone" or "neck".
    place: str
    channels: int
    #: Px of the input that a cell stands for.
    stride: float
    #: Cells; None where images differ in size.
    side: int | None
