"""Other measures of the same detections: a comparison that holds by one of them alone says little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gan_kd.data.dataset import DetectionDataset
from gan_kd.evaluation.metrics import mean_of_known
from gan_kd.evaluation.voc import VOCMetric

# Each the double next to its decimal, so that an overlap of exactly 60 of 100 px reaches 0.60.
THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))


def measures(dataset: DetectionDataset, detections: Sequence[np.ndarray]) -> dict[str, float]:
    """mAP by VOC's two rules, and its mean over ten IoU thresholds.

    detections: for each record (K, 6) x0, y0, x1, y1, class, score, in pixels of the image. Returns percent, nan
    where no class has ground truth: "voc07" (11 points) and "voc10" (area) at IoU 0.5, "ap", the mean of the area
    rule over IoU 0.50, 0.55 .. 0.95, and "ap75", the area rule at 0.75, with VOC's difficult objects and pixels.
    COCO's AP of the same detections is another number: it takes the precision at 101 recalls and 100 detections of an
    image. Diverged where a detection is not finite.
    """

    def counted(iou: float, points11: bool) -> float:
        metric = VOCMetric(dataset.classes, iou, points11)
        for record, found in zip(dataset.records, detections):
            metric.update(found, record.boxes, record.labels, record.difficult, f"image {record.id}")
        return metric.result().map

    by_threshold = [counted(iou, False) for iou in THRESHOLDS]
    return {
        "voc07": counted(0.5, True),
        "voc10": by_threshold[0],
        "ap": mean_of_known(by_threshold),
        "ap75": by_threshold[THRESHOLDS.index(0.75)],
    }
