"""COCO average precision, counted by pycocotools on the annotation file itself, crowds and areas included."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gan_kd.errors import UsageError
from gan_kd.metrics import Result, checked_detections, mean_of_known

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class COCOMetric:
    """COCO AP of the images that `update` was called for.

    annotations: an instances_*.json file. classes: names of the labels; label i is the file's category of
    that name, whatever its id (COCO's 80 categories have ids 1 to 90). UsageError where the file is no such
    file or lacks a class. Every detection counts, whatever its score; GluonCV's metric drops those below
    0.05.
    """

    def __init__(self, annotations: Path, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        try:
            with _silent():
                self._truth = COCO(str(annotations))
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise UsageError(f"{annotations}: not a readable COCO annotation file ({error})") from error
        by_name = {category["name"]: category["id"] for category in self._truth.cats.values()}
        missing = [name for name in self.classes if name not in by_name]
        if missing:
            raise UsageError(f"{annotations}: no category is named {', '.join(missing)}; check data.classes")
        self._category = [by_name[name] for name in self.classes]
        self._images: list[int] = []
        self._found: list[dict] = []

    def update(self, image_id: int, detections: np.ndarray) -> None:
        """Count one image.

        image_id: the annotation file's. detections: (K, 6) x0, y0, x1, y1, class, score in the image's
        pixels; rows of class < 0 are padding. The last pixel is included (width = x1 - x0 + 1, as GluonCV
        reads and writes COCO boxes). RunError where a value is not finite, ValueError where the file has no
        such image.
        """
        if image_id not in self._truth.imgs:
            raise ValueError(f"image {image_id} is not in the annotation file")
        self._images.append(image_id)
        for x0, y0, x1, y1, label, score in checked_detections(
            detections, len(self.classes), f"image {image_id}"
        ).tolist():
            self._found.append(
                {
                    "image_id": image_id,
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
        nothing = COCO()  # loadRes fails on an empty list
        nothing.dataset = {**self._truth.dataset, "annotations": []}
        nothing.createIndex()
        return nothing


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """pycocotools prints its progress; a progress bar of ours may be on the screen."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
