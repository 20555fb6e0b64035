"""SSD's training images: random colours, expansion, crop and mirroring, and the targets of what is left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gan_kd.data import augment
from gan_kd.data.batch import Array, Sample
from gan_kd.data.images import reducible
from gan_kd.data.pixels import Look, render
from gan_kd.data.sizes import Square
from gan_kd.detectors.ssd.targets import SSDTargets


class SSDTrainTransform:
    """Random colours, expansion, crop, resize and mirroring of a training image, and its SSD targets.

    size: side of the square input in pixels; anchors: (A, 4) centre form in input pixels. Difficult objects
    are trained on like the others, as in GluonCV. augment: "ssd" for all of it, "flip" for mirroring alone, which
    networks learn sooner that start from random weights. Source: SSD (arXiv 1512.02325), section 2.2.
    """

    images = 1

    def __init__(self, size: int, anchors: np.ndarray, augment: str = "ssd") -> None:
        self.sizes = Square(size)
        self.whole = augment == "flip"
        self.targets = SSDTargets(anchors)

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """image: (H, W, 3) uint8 RGB; label: (M, 6) box, class, difficult; rng: source of all randomness.

        Returns the normalised image (3, S, S), class targets (A,) and box targets (A, 4), all float32.
        """
        pixels, label = self.augment(image, label, rng)
        return (pixels, *self.targets(label[:, :4], label[:, 4]))

    def augment(self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The augmented image (3, S, S) float32 and the label rows that are left, boxes in its pixels."""
        look, label = self.draw(label, image.shape[1], image.shape[0], rng, reducible=False)
        pixels = np.empty((3, self.sizes.side, self.sizes.side), np.float32)
        render(image, look, pixels)
        return pixels, label

    def draw(
        self, label: np.ndarray, width: int, height: int, rng: np.random.Generator, reducible: bool
    ) -> tuple[Look, np.ndarray]:
        """What becomes of an image of this size, as of `gan_kd.data.augment.draw`."""
        side = self.sizes.side
        return augment.draw(label, (height, width), (side, side), rng, reducible, self.whole)

    def arrays(self, height: int, width: int, objects: int) -> list[Array]:
        """Classes (A,) and offsets (A, 4)."""
        return [((len(self.targets),), np.float32), ((len(self.targets), 4), np.float32)]

    def write(
        self, sample: Sample, rng: np.random.Generator, image: np.ndarray, targets: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Write a sample's image and targets; the objects that are left, (m, 5)."""
        record = sample.record
        look, label = self.draw(sample.label(), record.width, record.height, rng, reducible(record.image))
        render(sample.image(look.reduction), look, image)
        classes, offsets = targets
        self.targets.write(label[:, :4], label[:, 4], classes, offsets)
        return label[:, :5]
