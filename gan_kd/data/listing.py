"""The files of a folder, found by their names without suffix."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path


class Listing:
    """Files with one of some suffixes, in upper, lower or mixed case. Every folder is read once."""

    def __init__(self, suffixes: Sequence[str]) -> None:
        self._order = {suffix: place for place, suffix in enumerate(suffixes)}
        self._folders: dict[Path, dict[str, list[str]]] = {}

    def find(self, stem: Path) -> list[Path]:
        """The files of this name and any suffix, in the order of the suffixes."""
        if stem.parent not in self._folders:
            self._folders[stem.parent] = self._read(stem.parent)
        return [stem.parent / name for name in self._folders[stem.parent].get(stem.name, ())]

    def _read(self, folder: Path) -> dict[str, list[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        try:
            names = os.listdir(folder)
        except OSError:
            return found
        for name in sorted(names, key=lambda name: (self._rank(name), name.swapcase())):  # lower case first
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in self._order:
                found[stem].append(name)
        return dict(found)

    def _rank(self, name: str) -> int:
        return self._order.get(os.path.splitext(name)[1].lower(), 0)
