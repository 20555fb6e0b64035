"""Annotations in PASCAL VOC's layout: {JPEGImages, Annotations, ImageSets/Main} and an XML file an image.

Boxes, names and difficult flags are read as by GluonCV's VOCDetection, which needs MXNet and drops faulty
boxes with a warning; here every fault is told.
"""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from gan_kd.data.images import SUFFIXES, verified_size
from gan_kd.data.record import SPLITS_BY_FLAG, Flaw, Labels, Object, Problem, Reading, record_of
from gan_kd.errors import UsageError
from gan_kd.system.untrusted import file_within, read_bytes

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_SUFFIXES = (*SUFFIXES, *map(str.upper, SUFFIXES))
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_LARGEST_LIST, _LARGEST_XML = 100_000_000, 10_000_000  # bytes; some million images, some 40,000 objects
_MOST_OBJECTS = 10_000


class VOCSplit:
    """The images that folder/ImageSets/Main/{split}.txt names, one a line.

    Raises UsageError where that file is missing or names none.
    """

    annotations = None  # no COCO annotation file

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder
        self.file = folder / "ImageSets" / "Main" / f"{split}.txt"
        try:
            lines = read_bytes(self.file, _LARGEST_LIST).decode("utf-8-sig", errors="replace").splitlines()
        except OSError:
            raise UsageError(f"{self.file}: there is no such list of images ({_splits_in(folder)})") from None
        except ValueError as error:
            raise UsageError(f"{self.file}: not a list of images ({error})") from None
        self.items = [line.strip() for line in lines if line.strip()]
        if not self.items:
            raise UsageError(f"{self.file}: names no image; name another split in data.train or data.val")

    def names(self, item: str) -> set[str]:
        """Class names of an image's objects as they are written; none where its annotation is broken."""
        try:
            return {_text(node, "name").strip() for node in _parse(self._xml(item)).iter("object")}
        except (Flaw, ValueError):
            return set()

    def read(self, item: str, labels: Labels) -> Reading:
        """An image and its annotation, looked through."""
        try:
            image, xml = self._image(item), self._xml(item)
        except ValueError as error:
            return Reading(None, [Problem(self.file, f"'{item}' cannot be the name of an image: {error}")])
        problems = []
        size = root = None
        try:
            size = verified_size(image)
        except Flaw as flaw:
            named = f", but {self.file} names it" if not image.exists() else ""
            problems.append(Problem(image, f"{flaw}{named}"))
        try:
            root = _parse(xml)
            if size:
                _compare_size(root, size)
        except Flaw as flaw:
            problems.append(Problem(xml, str(flaw)))
        if size is None or root is None or problems:
            return Reading(None, problems)
        objects = []
        for number, node in enumerate(root.iter("object"), 1):
            try:
                found = _object(node, size, labels)
            except Flaw as flaw:
                problems.append(Problem(xml, f"object {number}: {flaw}"))
            else:
                objects += [found] if found else []
        return Reading(record_of(item, image, size, objects), problems)

    def _xml(self, item: str) -> Path:
        return file_within(self.folder / "Annotations", f"{item}.xml")

    def _image(self, item: str) -> Path:
        paths = [file_within(self.folder / "JPEGImages", f"{item}{suffix}") for suffix in _SUFFIXES]
        return next((path for path in paths if path.exists()), paths[0])


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
        parser.Parse(read_bytes(xml, _LARGEST_XML), True)
        root = builder.close()
    except FileNotFoundError:
        raise Flaw("does not exist, but its image is in the split") from None
    except OSError as error:
        raise Flaw(f"cannot be read ({error.strerror})") from None
    except (expat.ExpatError, LookupError, ValueError) as error:  # LookupError: an encoding that Python does not know
        raise Flaw(f"is not XML ({error})") from None
    if sum(1 for _ in root.iter("object")) > _MOST_OBJECTS:
        raise Flaw(f"has more than {_MOST_OBJECTS} objects")
    return root


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it has a document type, which annotations do not need")


def _compare_size(root: ElementTree.Element, size: tuple[int, int]) -> None:
    """A size of zero, as some tools write, or none says nothing; another one than the image's is a fault."""
    written = [root.findtext(f"size/{side}", "0").strip() for side in ("width", "height")]
    numbers = tuple(map(_float, written))
    if 0 not in numbers and numbers != size:
        found, true = " x ".join(written), " x ".join(map(str, size))
        raise Flaw(f"is for an image of {found} px, but its image has {true}: the boxes may not fit it")


def _object(node: ElementTree.Element, size: tuple[int, int], labels: Labels) -> Object | None:
    name = _text(node, "name")
    label = labels.find(name)
    if label is None:
        return None
    xmin, ymin, xmax, ymax = box = [_number(node, side) for side in _SIDES]
    shown = f"the box of '{name.strip()}' (" + ", ".join(f"{s} {v:g}" for s, v in zip(_SIDES, box)) + ")"
    if xmax < xmin or ymax < ymin:
        raise Flaw(f"{shown} is inverted")
    if xmax == xmin or ymax == ymin:
        raise Flaw(f"{shown} has no area")
    # As GluonCV has it; one pixel too many on the right is common, where a tool counted from 0.
    if min(xmin, ymin) < 1 or xmax > size[0] + 1 or ymax > size[1] + 1:
        raise Flaw(f"{shown} leaves the image of {size[0]} x {size[1]} px, whose first pixel is 1")
    return Object((xmin - 1, ymin - 1, xmax - 1, ymax - 1), label, _is_difficult(node))


def _is_difficult(node: ElementTree.Element) -> bool:
    try:
        return bool(int(node.findtext("difficult", "0")))
    except ValueError:
        return False


def _number(node: ElementTree.Element, side: str) -> float:
    text = _text(node, f"bndbox/{side}")
    value = _float(text)
    if not math.isfinite(value):
        raise Flaw(f"{side} is '{text.strip()}', not a number")
    return value


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _text(node: ElementTree.Element, path: str) -> str:
    text = node.findtext(path)
    if not text or not text.strip():
        raise Flaw(f"has no {path}")
    return text
