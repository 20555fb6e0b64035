"""GFL's training images and the object of every prior in them. Without MXNet, as the loader's workers."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from gan_kd.data import augment
from gan_kd.data.batch import Array, Sample
from gan_kd.data.images import reducible
from gan_kd.data.pixels import render
from gan_kd.data.sizes import Sizes
from gan_kd.detectors.gfl import priors
from gan_kd.detectors.gfl.targets import assign

#: Px of which a padded image's sides are multiples: cells of this padding count as the image's.
MULTIPLE = 32
#: In place of an object: the cell belongs to no object, or to no image.
BACKGROUND, UNUSED = -1, -2


class GFLTrainTransform:
    """Training images as they are augmented, and of each prior the object that it stands for.

    sizes: of the input. flip: mirroring is the only augmentation, as published; else SSD's. Difficult and crowd objects
    are background, as in the published program.
    """

    def __init__(self, sizes: Sizes, flip: bool = True) -> None:
        self.sizes, self.flip = sizes, flip

    @property
    def images(self) -> int:
        """One."""
        return 1

    def arrays(self, height: int, width: int, objects: int) -> list[Array]:
        """Object of each prior (A,): its row in the truth, -1 for background, -2 for cells that no image fills. And
        the threshold of each object, as of `targets.Assigned`."""
        return [((len(_priors(width, height).centres),), np.int32), ((objects,), np.float64)]

    def write(
        self, sample: Sample, rng: np.random.Generator, image: np.ndarray, targets: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Write a sample's image, objects and thresholds; the objects that are left, (m, 5)."""
        record, label = sample.record, sample.label()
        label = label[label[:, 5] == 0]
        shape = record.height, record.width
        height, width = self.sizes.extents(np.array([shape]))[0].tolist()
        look, label = augment.draw(label, shape, (height, width), rng, reducible(record.image), self.flip)
        if image.shape[1:] != (height, width):
            image[:] = 0
        render(sample.image(look.reduction), look, image[:, :height, :width])
        made = _priors(image.shape[2], image.shape[1])
        used = made.inside(*(-(-side // MULTIPLE) * MULTIPLE for side in (width, height)))
        found = assign(made, label[:, :4], used)
        targets[0][:] = np.where(used, found.objects, UNUSED)
        targets[1][:] = 0
        targets[1][: len(label)] = found.thresholds
        return label[:, :5]


@functools.lru_cache(maxsize=64)  # an epoch of images of any aspect ratio has some dozen sizes of batches
def _priors(width: int, height: int) -> priors.Priors:
    return priors.make(priors.shapes(width, height))
