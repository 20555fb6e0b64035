"""VOC AP of 5,000 images with 100 detections each: GluonCV's VOC07MApMetric against gan_kd.evaluation.voc."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gan_kd import compat  # noqa: F401  (before GluonCV)
from gan_kd.evaluation.voc import VOCMetric
from gan_kd.system.timing import Result, in_turn, ratios

IMAGES, DETECTIONS = 5000, 100
CLASSES = [f"class {number}" for number in range(20)]
MOST_OBJECTS = 8
SIDE = 500  # px, of a VOC photograph


class Image(NamedTuple):
    """detections: (K, 6) float32 box, class, score by falling score; objects as VOCMetric.update takes them."""

    detections: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


def run(rounds: int) -> list[Result]:
    images = draw(np.random.default_rng(0), IMAGES, DETECTIONS)
    found: dict[str, float] = {}

    def theirs() -> None:
        found["GluonCV"] = gluoncv_map(images)

    def ours() -> None:
        found["ours"] = our_map(images)

    seconds = in_turn({"GluonCV": theirs, "ours": ours}, rounds)
    apart = abs(found["GluonCV"] - found["ours"])
    return [
        Result(
            key="voc_ap_ratio",
            what=f"VOC07MApMetric / VOCMetric, seconds, {IMAGES} images with {DETECTIONS} detections",
            ratios=ratios(seconds["GluonCV"], seconds["ours"]),
            aim=5,
            details={
                "GluonCV, s": float(np.median(seconds["GluonCV"])),
                "ours, s": float(np.median(seconds["ours"])),
                "mAP of both, %": found["ours"],
                "mAPs apart by, %": apart,
            },
            notes=["Both get the images one by one and run on one thread."],
        )
    ]


def draw(rng: np.random.Generator, images: int, detections: int) -> list[Image]:
    """Images with 1 to MOST_OBJECTS objects, some difficult; half of the detections near one, half anywhere."""
    drawn = []
    for _ in range(images):
        objects = rng.integers(1, MOST_OBJECTS + 1)
        boxes = _boxes(rng, objects)
        labels = rng.integers(0, len(CLASSES), objects)
        near = rng.integers(0, objects, detections // 2)
        size = np.tile(boxes[near, 2:] - boxes[near, :2], 2)
        placed = np.concatenate(
            [boxes[near] + rng.normal(0, 0.15, size.shape) * size, _boxes(rng, detections - len(near))]
        )
        classes = np.concatenate([labels[near], rng.integers(0, len(CLASSES), detections - len(near))])
        scores = -np.sort(-rng.random(detections))
        rows = np.column_stack((rng.permutation(np.column_stack((placed, classes))), scores)).astype(np.float32)
        drawn.append(Image(rows, boxes.astype(np.float32), labels, rng.random(objects) < 0.1))
    return drawn


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 0.7 * SIDE, (count, 2))
    return np.hstack((corner, corner + rng.uniform(0.05 * SIDE, 0.3 * SIDE, (count, 2))))


def our_map(images: list[Image]) -> float:
    metric = VOCMetric(CLASSES)
    for image in images:
        metric.update(*image)
    return metric.result().map


def gluoncv_map(images: list[Image]) -> float:
    from gluoncv.utils.metrics.voc_detection import VOC07MApMetric

    metric = VOC07MApMetric(iou_thresh=0.5, class_names=CLASSES)
    for rows, boxes, labels, difficult in images:
        metric.update(
            pred_bboxes=[rows[None, :, :4]],
            pred_labels=[rows[None, :, 4]],
            pred_scores=[rows[None, :, 5]],
            gt_bboxes=[boxes[None]],
            gt_labels=[labels[None]],
            gt_difficults=[difficult[None]],
        )
    return 100 * metric.get()[1][-1]
