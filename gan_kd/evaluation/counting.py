"""The recipe's metric of a whole data set. Nothing here needs MXNet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gan_kd.data.dataset import DetectionDataset
from gan_kd.evaluation.metrics import Result
from gan_kd.evaluation.voc import VOCMetric
from gan_kd.recipe import Eval


def count(dataset: DetectionDataset, detections: Sequence[np.ndarray], eval_config: Eval) -> Result:
    """AP of the detections of all records (each as in `Evaluation`), by the recipe's metric."""
    if eval_config.metric == "coco":
        from gan_kd.evaluation.coco import COCOMetric

        coco = COCOMetric(dataset.classes)
        for record, found in zip(dataset.records, detections):
            coco.update(found, record.boxes, record.labels, record.difficult, record.areas, f"image {record.id}")
        return coco.result()
    voc = VOCMetric(dataset.classes, eval_config.iou, points11=eval_config.metric == "voc07")
    for record, found in zip(dataset.records, detections):
        voc.update(found, record.boxes, record.labels, record.difficult, f"image {record.id}")
    return voc.result()


def check_truth(dataset: DetectionDataset, eval_config: Eval) -> None:
    """Build the metric's ground truth with nothing detected: what it cannot take is known before training."""
    count(dataset, [np.zeros((0, 6))] * len(dataset.records), eval_config)
