"""What was found, as files that COCO's tools read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_kd.data import coco
from gan_kd.errors import RunError
from gan_kd.system.strict_json import dumps

RESULTS, IMAGES = "detections.json", "images.json"
_LEFT_OUT = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # of 1 to 90: COCO's 80 categories have the other numbers


class Results:
    """What was found, for two files: COCO's list of results, and the images and categories that it refers to.

    The latter has the form of COCO's annotation files, so that `COCO(images.json).loadRes(detections.json)` reads both.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        of_coco = [number for number in range(1, 91) if number not in _LEFT_OUT]
        numbers = of_coco if tuple(classes) == coco.CLASSES else range(1, len(classes) + 1)
        self.categories = [{"id": number, "name": name} for number, name in zip(numbers, classes)]
        self.images: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []

    def add(self, image: dict[str, Any], width: int, height: int, found: np.ndarray) -> None:
        """An image and its detections (K, 6) in its pixels; the last pixel is included, as `COCOMetric` has it."""
        self.images.append({**image, "width": width, "height": height})
        for x0, y0, x1, y1, label, score in found.tolist():
            box = [round(value, 2) for value in (x0, y0, x1 - x0 + 1, y1 - y0 + 1)]
            category = self.categories[int(label)]["id"]
            self.results.append(
                {"image_id": image["id"], "category_id": category, "bbox": box, "score": round(score, 5)}
            )

    def save(self, folder: Path) -> None:
        """Writes both files; RunError where that fails."""
        lines = ",\n".join(map(dumps, self.results))
        about = {"images": self.images, "categories": self.categories, "annotations": []}
        try:
            (folder / RESULTS).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
            (folder / IMAGES).write_text(dumps(about, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{folder}: the results cannot be written ({error.strerror})") from error

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.results)
