"""What every data set is read into, and what can be wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gan_kd.errors import printable

#: How a user chooses among the splits that are there, for messages.
SPLITS_BY_FLAG = "choose with --set 'data.train=[NAME]' and --set 'data.val=[NAME]'"
#: Characters of the longest name of a class.
LONGEST_NAME = 200
_TWICE = "objects given twice in one place of an image: taken once"
_MOST_NOTES = 20
_MOST_FOUND = 100  # detections of a class that COCO AP counts in an image


class Record(NamedTuple):
    """An image and its objects; boxes are in its pixels, counted from 0, the last one included.

    width and height are the decoded image's. COCO's crowd regions are marked as difficult. Every box lies within the
    image, and no two of one class are equal.
    """

    id: str
    image: Path
    width: int
    height: int
    boxes: np.ndarray  # (M, 4) float32 xmin, ymin, xmax, ymax
    labels: np.ndarray  # (M,) int32, places in the class list
    difficult: np.ndarray  # (M,) bool
    areas: np.ndarray | None = None  # (M,) float64 px² of the objects' outlines, by which COCO AP calls them small


class Object(NamedTuple):
    """One row of a record."""

    box: tuple[float, float, float, float]
    label: int
    difficult: bool
    area: float | None = None


class Problem(NamedTuple):
    """What is wrong with a file, with the value at fault."""

    file: Path
    what: str

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.what}")


class Reading(NamedTuple):
    """What became of an image: without a record it cannot be used; boxes at fault are not in its record.

    notes: what was left out or changed without being a fault, each once for every time. digest: of the image file.
    """

    record: Record | None
    problems: list[Problem]
    notes: Sequence[str] = ()
    digest: bytes = b""


class Notes:
    """What was left out or changed without being a fault: by kind how often, and where first."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, kinds: Iterable[str], where: str) -> None:
        """Count each of these kinds once."""
        for kind in kinds:
            self._counts[kind] += 1
            self._first.setdefault(kind, where)

    def __str__(self) -> str:
        """A line a kind, the frequent ones first."""
        lines = [f"{count:,} {kind} (first: {self._first[kind]})" for kind, count in self._counts.most_common()]
        if len(lines) > _MOST_NOTES:
            rest = sum(count for _, count in self._counts.most_common()[_MOST_NOTES:])
            lines[_MOST_NOTES:] = [f"{rest:,} of {len(lines) - _MOST_NOTES:,} further kinds"]
        return "\n".join(map(printable, lines))


class Flaw(Exception):
    """A fault found while reading a file, for its Problem."""


class Labels:
    """From a class name in an annotation to its place in the class list, both without outer spaces or case.

    report: whether a name that is not in the list is a fault, or stands for an object to leave out.
    """

    def __init__(self, classes: Sequence[str], report: bool) -> None:
        self._classes = classes
        self._index = {plain(name): label for label, name in enumerate(classes)}
        self._report = report
        shown = ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
        self._advice = f"not in data.classes ({shown}): add it there, or set data.unknown_classes to ignore"

    def find(self, name: str, notes: list[str]) -> int | None:
        """The label; None for an object to leave out. Raises Flaw where that is a fault."""
        label = self._index.get(plain(name))
        if label is None and self._report:
            if not is_name(name):
                raise Flaw(f"class {ascii(name.strip())[:LONGEST_NAME]} has characters that no class name may have")
            raise Flaw(f"class '{name.strip()}' is {self._advice}")
        if label is None:
            notes.append("objects of classes that are not in data.classes: left out")
        elif name != self._classes[label]:
            notes.append(f"objects of '{name[:LONGEST_NAME]}' taken as '{self._classes[label]}'")
        return label


def plain(name: str) -> str:
    """A class name as names are compared."""
    return name.strip().lower()


def is_name(name: str) -> bool:
    """Whether a class can be called so: on one line, every character visible or a plain space."""
    name = name.strip()
    return 0 < len(name) <= LONGEST_NAME and name.isprintable()


def record_of(image_id: str, image: Path, size: tuple[int, int], objects: Sequence[Object], notes: list[str]) -> Record:
    """The record of an image of size (width, height).

    Of objects of one class with equal boxes one is kept: VOC's rule takes any detection to the first of them, so that
    nothing finds the other. An object that is difficult only in one of its entries is not difficult.
    """
    kept: dict[tuple[int, bytes], Object] = {}
    for item in objects:
        key = item.label, np.array(item.box, np.float32).tobytes()
        if key in kept:
            notes.append(_TWICE)
        if key not in kept or kept[key].difficult:
            kept[key] = item
    objects = list(kept.values())
    if objects and max(Counter(item.label for item in objects).values()) > _MOST_FOUND:
        notes.append(f"images with more than {_MOST_FOUND} objects of a class, of which COCO AP finds no more")
    boxes = np.array([item.box for item in objects], np.float32).reshape(-1, 4)
    labels = np.array([item.label for item in objects], np.int32)
    difficult = np.array([item.difficult for item in objects], bool)
    areas = None
    if any(item.area is not None for item in objects):
        sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2] + 1
        areas = np.array([side.prod() if item.area is None else item.area for item, side in zip(objects, sides)])
    return Record(image_id, image, *size, boxes, labels, difficult, areas)
