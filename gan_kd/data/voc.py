"""Annotations in PASCAL VOC's layout: {JPEGImages, Annotations, ImageSets/Main} and an XML file an image.

Boxes, names and difficult flags are read as by GluonCV's VOCDetection, which needs MXNet and drops faulty
boxes with a warning; here every fault is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from gan_kd.data.images import SUFFIXES, Look, examine
from gan_kd.data.listing import Listing
from gan_kd.data.record import SPLITS_BY_FLAG, Flaw, Labels, Object, Problem, Reading, is_name, record_of
from gan_kd.data.values import decoded, decoded_xml, flag, number, size_or_none
from gan_kd.errors import UsageError
from gan_kd.system.untrusted import file_within, read_bytes

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_LARGEST_LIST, _LARGEST_XML = 100_000_000, 10_000_000  # bytes; some million images, some 40,000 objects
_MOST_OBJECTS = 10_000
_LABELLED = re.compile(r"(.*\S)\s+[+-]?[01]")  # as in VOC's lists of a class: the image, and whether it shows one

_COLUMN = "lines of a list with a column of -1, 0 or 1, which is not used"
_PATH = "lines of a list that are paths, of which the name in JPEGImages is used"
_AGAIN = "lines of a list that name an image again: it is taken as often as it is named"
_FORMATS = "images that are there in several formats: the first of .jpg, .jpeg, .jpe, .jfif, .png, .bmp, .webp is used"
_EDGE = "boxes of which a side lies a pixel past the image, as in tools that count from 0: cut off at its border"
_SECOND = "objects with more than one bndbox: the first is used"


class VOCSplit:
    """The images that folder/ImageSets/Main/{split}.txt names, one a line, with or without path, suffix and label.

    Raises UsageError where that file is missing or names none.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder
        self.file = folder / "ImageSets" / "Main" / f"{split}.txt"
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._images, self._annotations = Listing(SUFFIXES), Listing((".xml",))
        try:
            lines = decoded(read_bytes(self.file, _LARGEST_LIST), errors="replace").splitlines()
        except OSError:
            raise UsageError(f"{self.file}: there is no such list of images ({_splits_in(folder)})") from None
        except ValueError as error:
            raise UsageError(f"{self.file}: not a list of images ({error})") from None
        self.items: list[Any] = [self._item(line.strip()) for line in lines if line.strip()]
        if not self.items:
            raise UsageError(f"{self.file}: names no image; name another split in data.train or data.val")
        self.notes += [_AGAIN] * (len(self.items) - len(set(self.items)))

    def names(self, item: str) -> set[str]:
        """Class names of an image's objects as they are written; none where its annotation is broken."""
        try:
            nodes = list(_parse(self._xml(item)).iter("object"))
        except (Flaw, ValueError):
            return set()
        return {name.strip() for node in nodes for name in (node.findtext("name") or "",) if is_name(name)}

    def read(self, item: str, labels: Labels) -> Reading:
        """An image and its annotation, looked through."""
        problems: list[Problem] = []
        notes: list[str] = []
        look = root = None
        try:
            image, xml = self._image(item, notes), self._xml(item)
        except ValueError as error:
            return Reading(None, [Problem(self.file, f"'{item}' cannot be the name of an image: {error}")])
        try:
            look = examine(image)
        except Flaw as flaw:
            named = f", but {self.file} names it" if not image.exists() else ""
            problems.append(Problem(image, f"{flaw}{named}"))
        try:
            root = _parse(xml)
            if look:
                _compare_size(root, look)
        except Flaw as flaw:
            problems.append(Problem(xml, str(flaw)))
        if look is None or root is None or problems:
            return Reading(None, problems)
        objects = []
        for place, node in enumerate(root.iter("object"), 1):
            try:
                found = _object(node, look[:2], labels, notes)
            except Flaw as flaw:
                problems.append(Problem(xml, f"object {place}: {flaw}"))
            else:
                objects += [found] if found else []
        record = record_of(item, image, look[:2], objects, notes)
        return Reading(record, problems, [*look.notes, *notes], look.digest)

    def _item(self, line: str) -> str:
        """The name of the image that a line stands for; the line itself where no image is there."""
        for name, note in _spellings(line):
            try:
                there = self._images.find(file_within(self.folder / "JPEGImages", name))
            except ValueError:
                continue
            if there:
                self.notes += [note] if note else []
                return name
        return PurePosixPath(line).stem if line.lower().endswith(SUFFIXES) and "/" not in line else line

    def _xml(self, item: str) -> Path:
        path = file_within(self.folder / "Annotations", f"{item}.xml")
        return next(iter(self._annotations.find(path.with_name(path.name[:-4]))), path)

    def _image(self, item: str, notes: list[str]) -> Path:
        path = file_within(self.folder / "JPEGImages", f"{item}{SUFFIXES[0]}")
        found = self._images.find(file_within(self.folder / "JPEGImages", item))
        notes += [_FORMATS] * (len(found) > 1)
        return found[0] if found else path


def _spellings(line: str) -> Iterator[tuple[str, str]]:
    """The names that a line of a list can stand for, the likeliest first, each with a note of what is not used."""
    labelled = _LABELLED.fullmatch(line)
    for text, note in [(line, ""), (labelled[1], _COLUMN)] if labelled else [(line, "")]:
        path = PurePosixPath(text.replace("\\", "/"))
        folders = [place for place, part in enumerate(path.parts) if part.lower() == "jpegimages"]
        inside = PurePosixPath(*path.parts[folders[-1] + 1 :]) if folders else path
        for name, remark in ((text, note), (str(inside), note or _PATH), (path.name, note or _PATH)):
            yield name, remark if name != text else note
            if name.lower().endswith(SUFFIXES):
                yield str(PurePosixPath(name).with_suffix("")), remark if name != text else note


def _splits_in(folder: Path) -> str:
    """The splits of a folder and how to name them; without any, the folder below it that has some."""
    there = sorted(path.stem for path in folder.glob("ImageSets/Main/*.txt") if "_" not in path.stem)
    if there:
        return f"splits there: {', '.join(there)}; {SPLITS_BY_FLAG}"
    inner = sorted(folder.glob("*/ImageSets/Main/*.txt"))
    return f"did you mean the folder {inner[0].parents[2]}?" if inner else "no split is there; check data.root"


def _parse(xml: Path) -> ElementTree.Element:
    """The root of an annotation. A document type is refused: entities grow in memory and may name other files."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(decoded_xml(read_bytes(xml, _LARGEST_XML)), True)
        root = builder.close()
    except FileNotFoundError:
        raise Flaw("does not exist, but its image is in the split") from None
    except OSError as error:
        raise Flaw(f"cannot be read ({error.strerror})") from None
    except (expat.ExpatError, ValueError) as error:
        raise Flaw(f"is not XML ({error})") from None
    if sum(1 for _ in root.iter("object")) > _MOST_OBJECTS:
        raise Flaw(f"has more than {_MOST_OBJECTS} objects")
    together = sum(1 for child in root.findall("annotation") if child.find("object") is not None)
    if together > 1:
        raise Flaw(f"holds the annotations of {together} images: each has a file of its own")
    return root


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it has a document type, which annotations do not need")


def _compare_size(root: ElementTree.Element, look: Look) -> None:
    """A size of zero, as some tools write, or none says nothing; another one than the image's is a fault."""
    written = [root.findtext(f"size/{side}") for side in ("width", "height")]
    size = size_or_none(written, ("size/width", "size/height"))
    if size is not None and size != look[:2]:
        found, true = (" x ".join(f"{side:g}" for side in sides) for sides in (size, look[:2]))
        raise Flaw(f"is for an image of {found} px, but its image has {true}{look.turn}: the boxes may not fit it")


def _object(node: ElementTree.Element, size: tuple[int, int], labels: Labels, notes: list[str]) -> Object | None:
    name = _text(node, "name")
    label = labels.find(name, notes)
    if label is None:
        return None
    boxes = node.findall("bndbox")
    if not boxes:
        raise Flaw("has no bndbox")
    box = [number(_text(boxes[0], side, "bndbox/"), side) for side in _SIDES]
    xmin, ymin, xmax, ymax = box
    shown = f"the box of '{name.strip()}' (" + ", ".join(f"{s} {v:g}" for s, v in zip(_SIDES, box)) + ")"
    if xmax < xmin or ymax < ymin:
        raise Flaw(f"{shown} is inverted")
    if min(box) >= 0 and max(box) <= 1 and min(size) > 1:
        raise Flaw(f"{shown} lies within the first pixel: are these parts of the image's sides? Write pixels")
    # One pixel too many is common on the right, where GluonCV takes it, and one too few on the left.
    if min(xmin, ymin) < 0 or xmax > size[0] + 1 or ymax > size[1] + 1:
        raise Flaw(f"{shown} leaves the image of {size[0]} x {size[1]} px, whose first pixel is 1")
    cut = max(xmin, 1.0), max(ymin, 1.0), min(xmax, float(size[0])), min(ymax, float(size[1]))
    x0, y0, x1, y1 = np.array([side - 1 for side in cut], np.float32).tolist()  # as records hold them
    if x1 <= x0 or y1 <= y0:
        raise Flaw(f"{shown} has no area")
    difficult = node.findtext("difficult")
    hard = flag(difficult, "difficult")
    if difficult is not None and difficult.strip() not in ("", "0", "1"):
        notes.append(f"difficult flags of '{difficult.strip()[:40]}', taken as {int(hard)}")
    notes += [_EDGE] * (list(cut) != box) + [_SECOND] * (len(boxes) > 1)
    return Object((x0, y0, x1, y1), label, hard)


def _text(node: ElementTree.Element, tag: str, where: str = "") -> str:
    """The text of the only child of that name; of several they must be equal."""
    texts = [text for text in (child.text or "" for child in node.findall(tag)) if text.strip()]
    if not texts:
        raise Flaw(f"has no {where}{tag}")
    different = sorted({text.strip() for text in texts})
    if len(different) > 1:
        raise Flaw(f"has several {where}{tag}: '{different[0]}' and '{different[1]}'")
    return texts[0]
