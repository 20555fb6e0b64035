"""Faster R-CNN's training images: resized and mirrored, and what the RPN should say of their anchors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gan_kd.data import augment
from gan_kd.data.batch import Array, Sample
from gan_kd.data.images import reducible
from gan_kd.data.pixels import render
from gan_kd.data.sizes import Bounded
from gan_kd.detectors.faster_rcnn.targets import RPNTargets, cells_of
from gan_kd.recipe.faster_rcnn import FasterRCNN, longest


class FasterRCNNTrainTransform:
    """Resize and mirroring of a training image, as GluonCV trains, its RPN targets, and the draws of its regions.

    size: of the shorter side, px. Targets of a sample: labels (h,w,A) and offsets (h,w,A,4), -1 and 0 where the batch
    is larger than the image; draws (proposals + objects,) in [0,1), by which the head chooses its regions. So what is
    sampled follows from the seed, the epoch and the image, on any number of devices and after a resume.
    """

    images = 1

    def __init__(self, size: int, config: FasterRCNN) -> None:
        self.sizes = Bounded(size, longest(size))
        self.proposals = config.train_proposals
        border = np.inf if config.border is None else config.border
        self.targets = RPNTargets(config.scales, border=border, samples=config.rpn_samples)

    def arrays(self, height: int, width: int, objects: int) -> list[Array]:
        """Labels, offsets and draws."""
        anchors = (*cells_of((height, width)), self.targets.anchors_per_cell)
        draws = (self.proposals + objects,)
        return [(anchors, np.float32), ((*anchors, 4), np.float32), (draws, np.float32)]

    def write(
        self, sample: Sample, rng: np.random.Generator, image: np.ndarray, targets: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Write a sample's image and targets; its objects, (m, 5)."""
        record = sample.record
        height, width = self.sizes.extents(np.array([[record.height, record.width]]))[0].tolist()
        shape = record.height, record.width
        look, label = augment.draw(sample.label(), shape, (height, width), rng, reducible(record.image), whole=True)
        image[:] = 0
        render(sample.image(look.reduction), look, image[:, :height, :width])
        labels, offsets, draws = targets
        labels[:], offsets[:] = -1, 0
        rows, columns = cells_of((height, width))
        labels[:rows, :columns], offsets[:rows, :columns] = self.targets(label[:, :4], (height, width), rng)
        draws[:] = rng.random(len(draws), np.float32)
        return label[:, :5]
