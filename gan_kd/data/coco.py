"""Annotations in COCO's layout: annotations/instances_{split}.json, the images in the folder {split}.

Boxes are read as by GluonCV's COCODetection, which needs MXNet and drops faulty boxes silently. The file is
plain JSON, read without pycocotools, which prints and has no checks.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gan_kd.data.images import SUFFIXES, examine
from gan_kd.data.listing import Listing
from gan_kd.data.record import SPLITS_BY_FLAG, Flaw, Labels, Object, Problem, Reading, is_name, record_of
from gan_kd.data.values import Ident, flag, ident, number, shown, size_or_none
from gan_kd.errors import UsageError
from gan_kd.system.untrusted import file_within, read_json

CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse",
    "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie",
    "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
    "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon",
    "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut",
    "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse",
    "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
_LARGEST = 4_000_000_000  # bytes; those of COCO have 0.5 GB
_BOX = ("x", "y", "width", "height")

_AGAIN = "entries of an image that is there already: taken once"
_MERGED = "categories with the name of another: taken as one class"
_UNLISTED = "annotations of images that the file does not list: left out"
_ELSEWHERE = "images that are in another folder than their file_name says, or have another suffix"
_IGNORED = "objects marked ignore: left out"
_TINY = "boxes of a pixel at most: left out, as by GluonCV"
_EDGE = "boxes that leave the image by a pixel at most: cut off at its border"
_AREA = "areas larger than the image: that of the box is used"


class Item(NamedTuple):
    """An image of the file by its id; several entries are a fault."""

    id: Ident
    entries: list[dict[str, Any]]


class COCOSplit:
    """The images of root/annotations/instances_{split}.json in the order of their ids.

    Raises UsageError where that file is missing or not COCO's.
    """

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.folder = root, root / split
        self.file = root / "annotations" / f"instances_{split}.json"
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._files = Listing(SUFFIXES)
        try:
            content = read_json(self.file, _LARGEST)
            images, categories, annotations = (content[key] for key in ("images", "categories", "annotations"))
            if not all(isinstance(part, list) for part in (images, categories, annotations)):
                raise ValueError("images, categories and annotations have to be lists")
        except FileNotFoundError:
            there = sorted(path.stem.partition("_")[2] for path in self.file.parent.glob("instances_*.json"))
            known = (
                f"splits there: {', '.join(there)}; {SPLITS_BY_FLAG}" if there else "no split is there; check data.root"
            )
            raise UsageError(f"{self.file}: there is no such annotation file ({known})") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UsageError(f"{self.file}: not a readable COCO annotation file ({reason})") from error
        if not images:
            raise UsageError(f"{self.file}: holds no image; name another split in data.train or data.val")
        by_id = self._by_id(images, "images")
        self.items: list[Any] = [
            Item(key, by_id[key]) for key in sorted(by_id, key=lambda key: (isinstance(key, str), key))
        ]
        self._categories = {key: _category_names(found) for key, found in self._by_id(categories, "categories").items()}
        names = [name for found in self._categories.values() for name in found]
        self.notes += [_MERGED] * (len(names) - len({name.strip().lower() for name in names}))
        self._objects = self._by_id(annotations, "annotations", "image_id")
        self.notes += [_UNLISTED] * sum(len(found) for key, found in self._objects.items() if key not in by_id)

    def names(self, item: Item) -> set[str]:
        """Class names of an image's objects as they are written."""
        found = set()
        for entry in self._objects.get(item.id, ()):
            try:
                name = self._category(entry)
            except Flaw:
                continue
            found |= {name.strip()} if is_name(name) else set()
        return found

    def read(self, item: Item, labels: Labels) -> Reading:
        """An image and its annotations, looked through."""
        entry, notes = item.entries[0], [_AGAIN] * (len(item.entries) - 1)
        try:
            files = {str(other.get("file_name")) for other in item.entries}
            if len(files) > 1:
                raise Flaw(
                    f"its id is that of {len(files)} images ({', '.join(sorted(files)[:3])}), so that nothing says "
                    "which objects are whose: number them anew"
                )
            image = self._image(entry, notes)
        except Flaw as flaw:
            return Reading(None, [Problem(self.file, f"image {shown(item.id)}: {flaw}")])
        try:
            look = examine(image)
        except Flaw as flaw:
            named = f", but {self.file} names it" if not image.exists() else ""
            return Reading(None, [Problem(image, f"{flaw}{named}")])
        try:
            size = size_or_none([entry.get("width"), entry.get("height")], ("width", "height"))
        except Flaw as flaw:
            return Reading(None, [Problem(self.file, f"image {shown(item.id)}: {flaw}")])
        if size is not None and size != look[:2]:
            here, true = (f"{width:g} x {height:g} px" for width, height in (size, look[:2]))
            fault = f"has {here} here, but {image} has {true}{look.turn}: the boxes may not fit it"
            return Reading(None, [Problem(self.file, f"image {shown(item.id)} {fault}")])
        problems, objects = [], []
        for annotation in self._objects.get(item.id, ()):
            try:
                found = self._object(annotation, look[:2], labels, notes)
            except Flaw as flaw:
                where = f"image {shown(item.id)}, annotation {shown(annotation.get('id', '(without id)'))}"
                problems.append(Problem(self.file, f"{where}: {flaw}"))
            else:
                objects += [found] if found else []
        record = record_of(str(item.id), image, look[:2], objects, notes)
        return Reading(record, problems, [*look.notes, *notes], look.digest)

    def _by_id(self, entries: list[Any], part: str, key: str = "id") -> dict[Ident, list[dict[str, Any]]]:
        """Entries of a part of the file by their id; those that are none are problems."""
        found: defaultdict[Ident, list[dict[str, Any]]] = defaultdict(list)
        for place, entry in enumerate(entries, 1):
            try:
                if not isinstance(entry, dict):
                    raise Flaw(f"is {shown(entry)}, not an entry with keys")
                found[ident(entry.get(key), key)].append(entry)
            except Flaw as flaw:
                self.problems.append(Problem(self.file, f"{part}, entry {place}: {flaw}"))
        return dict(found)

    def _image(self, entry: dict[str, Any], notes: list[str]) -> Path:
        """The file of an image: in the split's folder, in the root, or of another suffix."""
        if entry.get("file_name") is None:
            raise Flaw("has no 'file_name'")
        written = str(entry["file_name"])
        try:
            path = file_within(self.folder, written)
            if path.exists():
                return path
            name = written.replace("\\", "/")
            others = [file_within(folder, name) for folder in (self.folder, self.root)]
            others += [self.folder / other.name for other in others[:1]]
        except ValueError as error:
            raise Flaw(f"'{written}' cannot be its file: {error}") from None
        others += [file for stem in (others[0], others[2]) for file in self._files.find(stem.with_suffix(""))]
        found = next((other for other in others if other.is_file()), None)
        notes += [_ELSEWHERE] * (found is not None)
        return found or path

    def _category(self, entry: dict[str, Any]) -> str:
        """The class name of an object as it is written."""
        try:
            names = self._categories[ident(entry.get("category_id"), "category_id")]
        except KeyError:
            what = f"category_id {shown(entry.get('category_id'))}"
            raise Flaw(f"{what} is not among the file's categories") from None
        if len(names) > 1:
            raise Flaw(f"category_id {shown(entry['category_id'])} has several names: {', '.join(names[:3])}")
        if not names:
            raise Flaw(f"category_id {shown(entry['category_id'])} has no name")
        return names[0]

    def _object(self, entry: dict[str, Any], size: tuple[int, int], labels: Labels, notes: list[str]) -> Object | None:
        """None for what GluonCV leaves out: objects that say `ignore`, and boxes of a pixel at most.

        COCO's own files have such boxes.
        """
        name = self._category(entry)
        label = labels.find(name, notes)
        if label is None:
            return None
        if flag(entry.get("ignore"), "ignore"):
            notes.append(_IGNORED)
            return None
        x, y, width, height = box = _box(entry.get("bbox"))
        shown_box = f"the box of '{name}' (" + ", ".join(f"{key} {value:g}" for key, value in zip(_BOX, box)) + ")"
        area = _area(entry.get("area"))
        if min(width, height) < 0:
            raise Flaw(f"{shown_box} is inverted")
        if min(width, height) == 0:
            raise Flaw(f"{shown_box} has no area")
        if area is not None and area <= 0:
            raise Flaw(f"{shown_box} has no area: its 'area' is {area:g}; leave that out, or write width times height")
        if min(x, y) >= 0 and max(x + width, y + height) <= 1 and min(size) > 1:
            raise Flaw(f"{shown_box} lies within the first pixel: are these parts of the image's sides? Write pixels")
        if min(x, y) < -1 or x + width > size[0] + 1 or y + height > size[1] + 1:
            raise Flaw(f"{shown_box} leaves the image of {size[0]} x {size[1]} px")
        corners = _corners(box, size)
        if corners[2] <= corners[0] or corners[3] <= corners[1]:
            notes.append(_TINY)
            return None
        if area is not None and area > size[0] * size[1]:
            notes.append(_AREA)
            area = None
        notes += [_EDGE] * (min(x, y) < 0 or x + width > size[0] or y + height > size[1])
        return Object(corners, label, flag(entry.get("iscrowd"), "iscrowd"), area)


def _category_names(entries: list[dict[str, Any]]) -> list[str]:
    """The different names of the categories of one id."""
    names = [entry.get("name") for entry in entries]
    given = [str(name) for name in names if isinstance(name, (str, int, float)) and str(name).strip()]
    return list({name.strip().lower(): name for name in given}.values())


def _box(box: Any) -> list[float]:
    if not isinstance(box, list) or len(box) != 4:
        raise Flaw(f"bbox is {shown(box)}, not four numbers")
    return [number(value, f"{name} of bbox") for value, name in zip(box, _BOX)]


def _area(area: Any) -> float | None:
    return None if area is None or area == "" else number(area, "area")


def _corners(box: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """First and last pixel in each direction, cut off at the image's: a width of w covers x to x + w - 1."""
    x, y, width, height = box
    right, bottom = size[0] - 1, size[1] - 1
    xmin, xmax = (min(max(value, 0), right) for value in (x, x + max(width - 1, 0)))
    ymin, ymax = (min(max(value, 0), bottom) for value in (y, y + max(height - 1, 0)))
    xmin, ymin, xmax, ymax = np.array([xmin, ymin, xmax, ymax], np.float32).tolist()  # as records hold them
    return xmin, ymin, xmax, ymax
