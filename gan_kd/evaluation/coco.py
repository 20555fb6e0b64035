"""COCO average precision, counted by pycocotools on the objects that the reader kept, crowds and areas included."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gan_kd.evaluation.metrics import Result, checked_detections, mean_of_known

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class COCOMetric:
    """COCO AP of a data set, image by image: `update` for each, then `result`.

    classes: their names; a label is an index into them. Every detection counts, whatever its score; GluonCV's metric
    drops those below 0.05.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._images: list[dict[str, int]] = []
        self._objects: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def update(
        self,
        detections: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray,
        crowd: np.ndarray,
        areas: np.ndarray | None = None,
        image: str = "",
    ) -> None:
        """Count one image.

        detections: (K, 6) x0, y0, x1, y1, class, score; rows of class < 0 are padding. boxes: (M, 4).
        All boxes in pixels of the image, the last pixel included (width = x1 - x0 + 1, as GluonCV reads and writes
        COCO boxes). labels: (M,) int. crowd: (M,) bool, regions on which detections are neither hits nor false alarms.
        areas: (M,) px² of the objects' outlines, which make them small, medium or large; None: of the boxes.
        image: its name, for messages. Diverged where a detection is not finite.
        """
        number = len(self._images) + 1
        self._images.append({"id": number})
        found = checked_detections(detections, len(self.classes), image or f"image number {number}")
        for box, label, score in zip(_sized(found[:, :4]), found[:, 4].tolist(), found[:, 5].tolist()):
            self._found.append(_entry(number, box, label, box[2] * box[3], score=score, iscrowd=0))
        sized = _sized(np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
        sizes = [width * height for _, _, width, height in sized] if areas is None else areas.tolist()
        for box, label, many, area in zip(sized, labels.tolist(), crowd.tolist(), sizes):
            self._objects.append(_entry(number, box, label, area, iscrowd=int(many)))

    def result(self) -> Result:
        """AP over IoU 0.50 to 0.95 by class, their mean, and pycocotools' twelve numbers, in percent."""
        with _silent():
            counted = COCOeval(self._indexed(self._objects), self._indexed(self._found), "bbox")
            counted.evaluate()
            counted.accumulate()
            counted.summarize()
        # Axes: IoU, recall, class, area range (0: all), detections an image (-1: 100). Without an object: -1.
        precision = counted.eval["precision"][:, :, :, 0, -1]
        precision = np.where(precision < 0, np.nan, precision)
        ap = {name: 100.0 * mean_of_known(precision[:, :, label]) for label, name in enumerate(self.classes)}
        numbers = [100.0 * float(value) if value >= 0 else float("nan") for value in counted.stats]
        return Result(ap, numbers[0], dict(zip(SUMMARY, numbers)))

    def _indexed(self, entries: list[dict[str, Any]]) -> COCO:
        """The entries as pycocotools wants them; it takes an id of 0 for none, so they count from 1."""
        coco = COCO()
        coco.dataset = {
            "images": self._images,
            "categories": [{"id": label, "name": name} for label, name in enumerate(self.classes)],
            "annotations": [{**entry, "id": number} for number, entry in enumerate(entries, 1)],
        }
        with _silent():
            coco.createIndex()
        return coco


def _sized(boxes: np.ndarray) -> list[list[float]]:
    """x, y, width, height of boxes (K, 4) whose last pixel is included."""
    found: list[list[float]] = np.column_stack((boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + 1)).tolist()
    return found


def _entry(image: int, box: list[float], label: float, area: float, **more: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": int(label), "bbox": box, "area": area, **more}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """pycocotools prints its progress; a progress bar of ours may be on the screen."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
