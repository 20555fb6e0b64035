"""COCO average precision, counted by pycocotools on the annotation file itself, crowds and areas included."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gan_kd.data.record import plain
from gan_kd.errors import UsageError
from gan_kd.evaluation.metrics import Result, checked_detections, mean_of_known

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class COCOMetric:
    """COCO AP of the images that `update` was called for.

    annotations: an instances_*.json file. classes: names of the labels; label i is the file's category of
    that name, case aside, whatever its id (COCO's 80 categories have ids 1 to 90). UsageError where the file is no
    such file or lacks a class. Every detection counts, whatever its score; GluonCV's metric drops those below
    0.05.
    """

    def __init__(self, annotations: Path, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        try:
            self._truth = _indexed(_completed(json.loads(annotations.read_bytes())))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{annotations}: not a readable COCO annotation file ({error})") from error
        by_name = {plain(str(category["name"])): number for number, category in self._truth.cats.items()}
        missing = [name for name in self.classes if plain(name) not in by_name]
        if missing:
            raise UsageError(f"{annotations}: no category is named {', '.join(missing)}; check data.classes")
        self._category = [by_name[plain(name)] for name in self.classes]
        self._ids = {str(image): image for image in self._truth.imgs}
        self._images: list[Any] = []
        self._found: list[dict] = []

    def update(self, image_id: int | str, detections: np.ndarray) -> None:
        """Count one image.

        image_id: the annotation file's, or that as text. detections: (K, 6) x0, y0, x1, y1, class, score in the image's
        pixels; rows of class < 0 are padding. The last pixel is included (width = x1 - x0 + 1, as GluonCV
        reads and writes COCO boxes). Diverged where a value is not finite, ValueError where the file has no
        such image.
        """
        if str(image_id) not in self._ids:
            raise ValueError(f"image {image_id} is not in the annotation file")
        self._images.append(self._ids[str(image_id)])
        for x0, y0, x1, y1, label, score in checked_detections(
            detections, len(self.classes), f"image {image_id}"
        ).tolist():
            self._found.append(
                {
                    "image_id": self._images[-1],
                    "category_id": self._category[int(label)],
                    "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1],
                    "score": score,
                }
            )

    def result(self) -> Result:
        """AP over IoU 0.50 to 0.95 by class, their mean, and pycocotools' twelve numbers, in percent."""
        with _silent():
            counted = COCOeval(self._truth, self._detections(), "bbox")
            counted.params.imgIds = self._images
            counted.params.catIds = self._category
            counted.evaluate()
            counted.accumulate()
            counted.summarize()
        # Axes: IoU, recall, class, area range (0: all), detections an image (-1: 100). Without an object: -1.
        precision = counted.eval["precision"][:, :, :, 0, -1]
        precision = np.where(precision < 0, np.nan, precision)
        column = {category: i for i, category in enumerate(sorted(self._category))}  # pycocotools sorts them
        ap = {
            name: 100.0 * mean_of_known(precision[:, :, column[category]])
            for name, category in zip(self.classes, self._category)
        }
        numbers = [100.0 * float(value) if value >= 0 else float("nan") for value in counted.stats]
        return Result(ap, numbers[0], dict(zip(SUMMARY, numbers)))

    def _detections(self) -> COCO:
        if self._found:
            return self._truth.loadRes(self._found)
        return _indexed({**self._truth.dataset, "annotations": []})  # loadRes fails on an empty list


def _completed(content: dict[str, Any]) -> dict[str, Any]:
    """An annotation file's content with what pycocotools needs and other tools than COCO's leave out.

    pycocotools takes the id 0 of an object for none and counts its detection as a false alarm: ids count from 1 anew.
    """
    boxed = [entry for entry in content["annotations"] if entry.get("bbox")]
    for number, entry in enumerate(boxed, 1):
        _, _, width, height = entry["bbox"]
        entry.update(id=number, iscrowd=entry.get("iscrowd", 0), area=entry.get("area", width * height))
    return {**content, "annotations": boxed}


def _indexed(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = content
    with _silent():
        coco.createIndex()
    return coco


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """pycocotools prints its progress; a progress bar of ours may be on the screen."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
