"""Annotations in COCO's layout: annotations/instances_{split}.json, the images in the folder {split}.

Boxes are read as by GluonCV's COCODetection, which needs MXNet and drops faulty boxes silently. The file is
plain JSON, read without pycocotools, which prints and has no checks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from gan_kd.data.images import verified_size
from gan_kd.data.record import SPLITS_BY_FLAG, Flaw, Labels, Object, Problem, Reading, record_of
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


class COCOSplit:
    """The images of root/annotations/instances_{split}.json in the order of their ids.

    Raises UsageError where that file is missing or not COCO's.
    """

    def __init__(self, root: Path, split: str) -> None:
        self.folder = root / split
        self.annotations = self.file = root / "annotations" / f"instances_{split}.json"
        try:
            content = read_json(self.file, _LARGEST)
            self.items = sorted(content["images"], key=lambda image: image["id"])
            self._categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
            self._objects: dict[Any, list[dict]] = defaultdict(list)
            for entry in content["annotations"]:
                self._objects[entry["image_id"]].append(entry)
            for entry in (*self.items, *content["annotations"]):
                hash((entry.get("id"), entry.get("category_id")))  # TypeError for a list where a number belongs
        except FileNotFoundError:
            there = sorted(path.stem.partition("_")[2] for path in self.file.parent.glob("instances_*.json"))
            known = (
                f"splits there: {', '.join(there)}; {SPLITS_BY_FLAG}" if there else "no split is there; check data.root"
            )
            raise UsageError(f"{self.file}: there is no such annotation file ({known})") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UsageError(f"{self.file}: not a readable COCO annotation file ({reason})") from error
        if not self.items:
            raise UsageError(f"{self.file}: holds no image; name another split in data.train or data.val")

    def names(self, item: dict) -> set[str]:
        """Class names of an image's objects as they are written."""
        ids = {entry.get("category_id") for entry in self._objects[item["id"]]}
        return {self._categories[number] for number in ids if number in self._categories}

    def read(self, item: dict, labels: Labels) -> Reading:
        """An image and its annotations, looked through."""
        try:
            image = file_within(self.folder, str(item["file_name"]))
            written = item["width"], item["height"]
        except KeyError as key:
            return Reading(None, [Problem(self.file, f"image {item['id']}: has no {key}")])
        except ValueError as error:
            what = f"image {item['id']}: '{item['file_name']}' cannot be its file: {error}"
            return Reading(None, [Problem(self.file, what)])
        try:
            size = verified_size(image)
        except Flaw as flaw:
            named = f", but {self.file} names it" if not image.exists() else ""
            return Reading(None, [Problem(image, f"{flaw}{named}")])
        if written != size:
            here, true = (f"{width} x {height} px" for width, height in (written, size))
            what = f"image {item['id']} has {here} here, but {image} has {true}: the boxes may not fit it"
            return Reading(None, [Problem(self.file, what)])
        problems, objects = [], []
        for entry in self._objects[item["id"]]:
            try:
                found = self._object(entry, size, labels)
            except (Flaw, TypeError) as flaw:  # TypeError: a list or text where a number belongs
                where = f"image {item['id']}, annotation {entry.get('id', '(without id)')}"
                problems.append(Problem(self.file, f"{where}: {flaw}"))
            else:
                objects += [found] if found else []
        return Reading(record_of(str(item["id"]), image, size, objects), problems)

    def _object(self, entry: dict, size: tuple[int, int], labels: Labels) -> Object | None:
        """None for what GluonCV leaves out: objects that say `ignore`, and boxes of a pixel at most.

        COCO's own files have such boxes.
        """
        category = entry.get("category_id")
        if category not in self._categories:
            raise Flaw(f"category_id {category} is not among the file's categories")
        label = labels.find(self._categories[category])
        if label is None or entry.get("ignore") == 1:
            return None
        x, y, width, height = box = _box(entry.get("bbox"))
        values = f"x {x:g}, y {y:g}, width {width:g}, height {height:g}"
        shown = f"the box of '{self._categories[category]}' ({values})"
        if min(width, height) < 0:
            raise Flaw(f"{shown} is inverted")
        if min(width, height) == 0 or not entry.get("area", 1) > 0:
            raise Flaw(f"{shown} has no area")
        if min(x, y) < -1 or x + width > size[0] + 1 or y + height > size[1] + 1:
            raise Flaw(f"{shown} leaves the image of {size[0]} x {size[1]} px")
        xmin, ymin, xmax, ymax = _corners(box, size)
        if xmax <= xmin or ymax <= ymin:
            return None
        return Object((xmin, ymin, xmax, ymax), label, bool(entry.get("iscrowd")))


def _box(box: Any) -> list[float]:
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError, OverflowError):  # OverflowError: a whole number beyond 1e308
        raise Flaw(f"bbox is {box}, not four numbers") from None
    if not all(map(math.isfinite, (x, y, width, height))):
        raise Flaw(f"bbox is {box}, not four finite numbers")
    return [x, y, width, height]


def _corners(box: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """First and last pixel in each direction, cut off at the image's: a width of w covers x to x + w - 1."""
    x, y, width, height = box
    right, bottom = size[0] - 1, size[1] - 1
    xmin, xmax = (min(max(value, 0), right) for value in (x, x + max(width - 1, 0)))
    ymin, ymax = (min(max(value, 0), bottom) for value in (y, y + max(height - 1, 0)))
    return xmin, ymin, xmax, ymax
