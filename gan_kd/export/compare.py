"""ONNX against MXNet on images: what the two runtimes calculate, number by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import mxnet as mx
import numpy as np

from gan_kd.detectors.base import Detector
from gan_kd.errors import RunError
from gan_kd.export import onnx
from gan_kd.export.mxnet import Predictions

SAME = 0.99  # least share of detections that both give: of two nearly equal scores either may come first, and survive
_BATCH = 10


class Bounds(NamedTuple):
    """On the largest difference of scores, and of boxes' corners in input px."""

    scores: float
    boxes: float


BOUNDS = Bounds(1e-4, 0.1)


@dataclass(frozen=True)
class Difference:
    """Largest differences over all images, all anchors and classes; after suppression, detections found by both.

    scores: of probabilities. boxes: of corners, input px. detections: found by MXNet or by ONNX, a pair of equal
    class within the bounds counted once; same: of these, the pairs.
    """

    images: int
    scores: float
    boxes: float
    detections: int
    same: int

    def __str__(self) -> str:
        return (
            f"ONNX against MXNet on {self.images} images: scores differ by {self.scores:.2g} at most, boxes by "
            f"{self.boxes:.2g} px; after suppression {self.same} of {self.detections} detections are the same"
        )


def require_alike(
    detector: Detector, plain: Path, suppressing: Path, images: np.ndarray, bounds: Bounds = BOUNDS
) -> Difference:
    """The difference between a detector and its two ONNX files on images (N,3,S,S).

    RunError where it is over the bounds, or less than 99 of 100 detections are the same.
    """
    found = difference(detector, plain, suppressing, images, bounds)
    if not (found.scores <= bounds.scores and found.boxes <= bounds.boxes):
        raise RunError(f"{found}, over the bounds of {bounds.scores:g} and {bounds.boxes:g} px; nothing is kept")
    if found.same < SAME * found.detections:
        raise RunError(f"{found}, less than {SAME:.0%}; nothing is kept")
    return found


def difference(detector: Detector, plain: Path, suppressing: Path, images: np.ndarray, bounds: Bounds) -> Difference:
    """The same without the refusal; bounds: within which two detections are the same."""
    predict, candidates = Predictions(detector), detector.decoder.candidates
    raw, nms = onnx.session(plain), onnx.session(suppressing)
    of_scores, of_boxes, either, same = [0.0], [0.0], 0, 0
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        ours = candidates(*predict(mx.nd.array(batch)))
        for mine, theirs, largest in zip(ours, onnx.run(raw, batch), (of_scores, of_boxes)):
            with np.errstate(invalid="ignore"):  # infinite in both: nan, which is within no bound
                largest.append(float(np.abs(mine.asnumpy() - theirs).max()))
        mxnet = [part.asnumpy() for part in detector(mx.nd.array(batch))]
        for one, other in zip(_rows(mxnet), _rows(onnx.run(nms, batch))):
            pairs = _pairs(one, other, bounds)
            same += pairs
            either += len(one) + len(other) - pairs
    return Difference(len(images), float(np.max(of_scores)), float(np.max(of_boxes)), either, same)


def _rows(parts: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Of each image class, score, x0, y0, x1, y1 of the rows in use."""
    return (rows[rows[:, 0] >= 0] for rows in np.concatenate(parts, axis=2))


def _pairs(one: np.ndarray, other: np.ndarray, bounds: Bounds) -> int:
    """How many rows of `one` have a partner in `other`, each partner taken once."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(one[:, None] - other[None])
    alike = (apart[..., 0] == 0) & (apart[..., 1] <= bounds.scores) & (apart[..., 2:] <= bounds.boxes).all(axis=2)
    taken: set[int] = set()
    for row in alike:
        taken.update([column for column in np.flatnonzero(row).tolist() if column not in taken][:1])
    return len(taken)
