"""YOLOv3's training images: mixtures of two, SSD's augmentation, a square of random size, and the targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gan_kd.data import augment
from gan_kd.data.batch import Array, Sample
from gan_kd.data.images import reducible
from gan_kd.data.pixels import render
from gan_kd.data.sizes import Random
from gan_kd.detectors.yolo3.targets import ROW, YOLO3Targets

#: Of the beta distribution of a mixture's ratio (Zhang et al., Bag of Freebies, arXiv 1902.04103, section 3.1).
_BETA = 1.5
_SHARE = 5  # the column of a label that says how much of a mixture its image is; `difficult` before


class YOLO3TrainTransform:
    """What GluonCV's `MixupDetection` and `YOLO3DefaultTrainTransform` make of an image, every draw from a generator.

    sides: of the square input in px, multiples of 32, of which `data.sizes.Random` draws. mixup_epochs: first epochs
    of a network's training in which every image is mixed with another one, before all else. augment: "ssd" for colours,
    expansion, crop and mirroring, "flip" for mirroring alone.
    """

    def __init__(self, sides: Sequence[int], mixup_epochs: int = 0, augment: str = "ssd") -> None:
        self.sizes = Random(tuple(sides))
        self.images = 2 if mixup_epochs else 1
        self.mixup_epochs = mixup_epochs
        self.whole = augment == "flip"

    def arrays(self, height: int, width: int, objects: int) -> list[Array]:
        """A row of `YOLO3Targets` for every object."""
        return [((objects, ROW), np.float32)]

    def write(
        self, sample: Sample, rng: np.random.Generator, image: np.ndarray, targets: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Write a sample's image and targets; the objects that are left, (m, 5)."""
        mixed = sample.epoch < self.mixup_epochs and len(sample.dataset) > 1
        pixels, label = _mixture(sample, rng) if mixed else (None, sample.label())
        label[:, _SHARE] = label[:, _SHARE] if mixed else 1
        height, width = (sample.record.height, sample.record.width) if pixels is None else pixels.shape[:2]
        side = image.shape[1]
        reduces = pixels is None and reducible(sample.record.image)
        look, label = augment.draw(label, (height, width), (side, side), rng, reduces, self.whole)
        render(sample.image(look.reduction) if pixels is None else pixels, look, image)
        rows = YOLO3Targets(side)(label[:, :4], label[:, 4], label[:, _SHARE])
        targets[0][:] = -1
        targets[0][: len(rows)] = rows
        return label[:, :5]


def _mixture(sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A sample mixed with another one: the pixels, and the label rows of both with their shares."""
    share = float(rng.beta(_BETA, _BETA))
    drawn = int(rng.integers(len(sample.dataset) - 1))
    other = Sample(sample.dataset, drawn + (drawn >= sample.index), sample.epoch)
    labels = [sample.label(), other.label()]
    for label, part in zip(labels, (share, 1 - share)):
        label[:, _SHARE] = part
    return mix(sample.image(), other.image(), share), np.concatenate(labels)


def mix(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """`share` x the first image + (1 - share) x the second, both at the upper left corner of what holds both.

    uint8 RGB (H, W, 3), fractions cut off; black where neither is. Boxes stay where they are.
    """
    height, width = np.maximum(first.shape[:2], second.shape[:2])
    mixed: np.ndarray = np.zeros((height, width, 3), np.float32)
    mixed[: first.shape[0], : first.shape[1]] = first.astype(np.float32) * np.float32(share)
    mixed[: second.shape[0], : second.shape[1]] += second.astype(np.float32) * np.float32(1 - share)
    return mixed.astype(np.uint8)
