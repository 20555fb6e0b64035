"""What a published table is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """One published table: `rows[row][column]` in percent; a cell that the table leaves empty is absent."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, float]]
