"""Pictures for TensorBoard: what a network detects in a few validation images, and where it looks.

Loaded only by a run that asks for TensorBoard, for it needs Matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import mxnet as mx
import numpy as np

from gan_kd.data.dataset import DetectionDataset
from gan_kd.detectors.base import Detector
from gan_kd.evaluation.evaluate import samples
from gan_kd.report import attention, photos
from gan_kd.training.board import Picture

IMAGES = 4


def panels(
    network: str,
    detector: Detector,
    dataset: DetectionDataset,
    detections: Sequence[np.ndarray],
    context: mx.Context,
) -> dict[str, Picture]:
    """Pictures by tag, the same `IMAGES` images at every call: `detections` beside the ground truth, and `attention`.

    network: its name in a run; detections: of every image, as `Evaluation` has them; context: where the
    parameters are. Empty where no image can be read.
    """
    chosen = [
        {
            **sample,
            "path": Path(sample["image"]),
            "detections": {network: sample["detections"]},
            "attention": {network: sample["attention"]},
        }
        for sample in samples(detector, dataset, detections, context, IMAGES, every=1)
    ]
    drawn = {
        "detections": _drawn(lambda to: photos.draw((photos.TRUTH, network), chosen, dataset.classes, to)),
        "attention": _drawn(lambda to: attention.draw([network], chosen, to)),
    }
    return {tag: picture for tag, picture in drawn.items() if picture is not None}


def _drawn(draw: Callable[[BinaryIO], bool]) -> Picture | None:
    target = io.BytesIO()
    if not draw(target):
        return None
    height, width = cv2.imdecode(np.frombuffer(target.getvalue(), np.uint8), cv2.IMREAD_COLOR).shape[:2]
    return Picture(height, width, target.getvalue())
