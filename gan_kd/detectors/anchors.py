"""Anchors as distillers and the loader's workers take them: NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

#: (height, width) of an input in px -> of each of some maps the anchors (h, w, a, 4), corners in input px. Picklable.
Anchors = Callable[[int, int], Sequence[np.ndarray]]


class FixedAnchors:
    """Anchors (h, w, a, 4) of each map, whatever the input: for networks that take one size."""

    def __init__(self, maps: Sequence[np.ndarray]) -> None:
        self.maps = list(maps)

    def __call__(self, height: int, width: int) -> list[np.ndarray]:
        return self.maps
