"""Small data sets that tests draw, in both layouts, and the AP of perfect detections on them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gan_kd.data.dataset import DetectionDataset
from gan_kd.evaluation.coco import COCOMetric
from gan_kd.evaluation.voc import VOCMetric
from gan_kd.recipe import Data

SIZE = (100, 80)
#: Of every image that is not given others, as VOC's corners.
BOXES = (("cat", 10, 10, 50, 40), ("dog", 40, 30, 90, 70))
OBJECT = (
    "<object><name>{0}</name><difficult>{5}</difficult><bndbox><xmin>{1}</xmin><ymin>{2}</ymin><xmax>{3}</xmax>"
    "<ymax>{4}</ymax></bndbox></object>\n"
)


def image(path: Path, size: tuple[int, int] = SIZE, seed: int = 0) -> None:
    """Noise, in the format of the suffix; OpenCV does not know .jfif."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    suffix = ".jpg" if path.suffix == ".jfif" else path.suffix.lower()
    path.write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())


def xml(*boxes: Sequence[Any], size: str | None = None, difficult: object = 0, head: str = "") -> str:
    """An annotation of boxes (name, xmin, ymin, xmax, ymax)."""
    rows = "".join(OBJECT.format(*box, difficult) for box in boxes)
    size = "<width>{}</width><height>{}</height>".format(*SIZE) if size is None else size
    return f"{head}<annotation><size>{size}</size>\n{rows}</annotation>\n"


def voc(root: Path, annotations: Mapping[str, str | bytes], suffixes: Mapping[str, str] | None = None) -> Path:
    """A set of images t0, t1 .. to train on and v0 .. to measure on."""
    for seed, (name, text) in enumerate(annotations.items()):
        image(root / "JPEGImages" / f"{name}{(suffixes or {}).get(name, '.jpg')}", seed=seed)
        file = root / "Annotations" / f"{name}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    (root / "ImageSets/Main").mkdir(parents=True)
    for split in ("train", "val"):
        listed(root, split, "".join(f"{name}\n" for name in annotations if name[0] == split[0]).encode())
    return root


def listed(root: Path, split: str, content: bytes) -> None:
    (root / "ImageSets/Main" / f"{split}.txt").write_bytes(content)


def content(letter: str, number: int) -> dict[str, list[dict[str, Any]]]:
    """A COCO file of so many images called by a letter, with a cat and a dog on each."""
    images: list[dict[str, Any]] = [
        {"id": k + 1, "file_name": f"{letter}{k}.jpg", "width": SIZE[0], "height": SIZE[1]} for k in range(number)
    ]
    annotations = [
        {"id": 10 * entry["id"] + k, "image_id": entry["id"], "category_id": k + 1, "area": 900, "iscrowd": 0,
         "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for entry in images
        for k, (_, x0, y0, x1, y1) in enumerate(BOXES)
    ]  # fmt: skip
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(root: Path, train: dict[str, Any], val: dict[str, Any]) -> Path:
    """A set of these files and the images that they name."""
    (root / "annotations").mkdir(parents=True)
    for split, whole in (("train", train), ("val", val)):
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(whole))
        for seed, entry in enumerate(whole["images"]):
            if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
                image(root / split / entry["file_name"], seed=seed + 100 * (split == "val"))
    return root


def data_of(root: Path, layout: str = "folder", **keys: Any) -> Data:
    """The data part of a recipe for a set."""
    return Data(**{"dataset": layout, "root": str(root), "train": ["train"], "val": ["val"], "classes": "annotations",
                   "size": 64, **keys})  # fmt: skip


def all_found(dataset: DetectionDataset) -> bool:
    """Whether AP is 100 for every class that has one where every object is found: by VOC's rules and by COCO's."""
    rules = [VOCMetric(dataset.classes, iou, points11) for iou in (0.5, 0.95) for points11 in (True, False)]
    by_coco = COCOMetric(dataset.classes)
    for record in dataset.records:
        found = np.column_stack((record.boxes, record.labels, np.full(len(record.labels), 0.9)))
        for rule in rules:
            rule.update(found, record.boxes, record.labels, record.difficult)
        by_coco.update(found, record.boxes, record.labels, record.difficult, record.areas)
    results = [*(rule.result() for rule in rules), by_coco.result()]
    known = [value for result in results for value in result.ap.values() if not math.isnan(value)]
    return bool(known) and bool(np.allclose(known, 100))
