"""What every data set is read into, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gan_kd.errors import printable

#: How a user chooses among the splits that are there, for messages.
SPLITS_BY_FLAG = "choose with --set 'data.train=[NAME]' and --set 'data.val=[NAME]'"


class Record(NamedTuple):
    """An image and its objects; boxes are in its pixels, counted from 0, the last one included.

    width and height are the decoded image's. COCO's crowd regions are marked as difficult.
    """

    id: str
    image: Path
    width: int
    height: int
    boxes: np.ndarray  # (M, 4) float32 xmin, ymin, xmax, ymax
    labels: np.ndarray  # (M,) int32, places in the class list
    difficult: np.ndarray  # (M,) bool


class Object(NamedTuple):
    """One row of a record."""

    box: tuple[float, float, float, float]
    label: int
    difficult: bool


class Problem(NamedTuple):
    """What is wrong with a file, with the value at fault."""

    file: Path
    what: str

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.what}")


class Reading(NamedTuple):
    """What became of an image: without a record it cannot be used; boxes at fault are not in its record."""

    record: Record | None
    problems: list[Problem]


class Flaw(Exception):
    """A fault found while reading a file, for its Problem."""


class Labels:
    """From a class name in an annotation to its place in the class list, both without outer spaces or case.

    report: whether a name that is not in the list is a fault, or stands for an object to leave out.
    """

    def __init__(self, classes: Sequence[str], report: bool) -> None:
        self._index = {plain(name): label for label, name in enumerate(classes)}
        self._report = report
        shown = ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
        self._advice = f"not in data.classes ({shown}): add it there, or set data.unknown_classes to ignore"

    def find(self, name: str) -> int | None:
        """The label; None for an object to leave out. Raises Flaw where that is a fault."""
        label = self._index.get(plain(name))
        if label is None and self._report:
            raise Flaw(f"class '{name.strip()}' is {self._advice}")
        return label


def plain(name: str) -> str:
    """A class name as names are compared."""
    return name.strip().lower()


def record_of(image_id: str, image: Path, size: tuple[int, int], objects: Sequence[Object]) -> Record:
    """The record of an image of size (width, height)."""
    boxes = np.array([item.box for item in objects], np.float32).reshape(-1, 4)
    labels = np.array([item.label for item in objects], np.int32)
    return Record(image_id, image, *size, boxes, labels, np.array([item.difficult for item in objects], bool))
