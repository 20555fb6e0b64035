"""Policies of input sizes: how large a batch is, which images share one, and how much of it each of them fills."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

Size = tuple[int, int]  # height, width, px
_BATCHES_A_SIZE = 10


class Sizes(Protocol):
    """What the loader asks. shapes: (N, 2) height and width of images on disk, px."""

    @property
    def padded(self) -> bool:
        """Whether images may fill less than their batch, from its upper left corner; the rest is 0."""
        ...

    @property
    def typical(self) -> Size:
        """Of a photo by itself, to count and time with."""
        ...

    def extents(self, shapes: np.ndarray) -> np.ndarray:
        """(N, 2) int64 height and width of the same images in network input, px."""
        ...

    def largest(self, shapes: np.ndarray) -> Size:
        """No batch of some of these images is higher or wider."""
        ...

    def of_batch(self, shapes: np.ndarray, place: tuple[int, int, int]) -> Size:
        """The size of a batch of these images. place: seed, epoch and number of the batch."""
        ...

    def grouped(self, order: np.ndarray, shapes: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
        """A random order of images, (N,) int64, so changed that batches of it are made of images that fit together."""
        ...


class Square(NamedTuple):
    """Every image fills a square of `side` px, whatever its aspect ratio: SSD, YOLO."""

    side: int

    @property
    def padded(self) -> bool:
        """False."""
        return False

    @property
    def typical(self) -> Size:
        """The square."""
        return self.side, self.side

    def extents(self, shapes: np.ndarray) -> np.ndarray:
        """The square."""
        return np.full((len(shapes), 2), self.side)

    def largest(self, shapes: np.ndarray) -> Size:
        """The square."""
        return self.side, self.side

    def of_batch(self, shapes: np.ndarray, place: tuple[int, int, int]) -> Size:
        """The square."""
        return self.side, self.side

    def grouped(self, order: np.ndarray, shapes: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
        """The order as it is."""
        return order


class Random(NamedTuple):
    """Every image fills a square whose side is drawn anew for every ten batches: YOLO (GluonCV's training script).

    It follows from a batch's place alone, so that a resumed run sees the same sizes.
    """

    sides: tuple[int, ...]

    @property
    def typical(self) -> Size:
        """The largest square."""
        return max(self.sides), max(self.sides)

    @property
    def padded(self) -> bool:
        """False."""
        return False

    def extents(self, shapes: np.ndarray) -> np.ndarray:
        """The largest square."""
        return np.full((len(shapes), 2), max(self.sides))

    def largest(self, shapes: np.ndarray) -> Size:
        """The largest square."""
        return max(self.sides), max(self.sides)

    def of_batch(self, shapes: np.ndarray, place: tuple[int, int, int]) -> Size:
        """The square drawn for this batch and those around it."""
        seed, epoch, batch = place
        # A fourth number, as orders and samples are seeded with two and three.
        rng = np.random.default_rng([seed, epoch, batch // _BATCHES_A_SIZE, 1])
        side = int(self.sides[rng.integers(len(self.sides))])
        return side, side

    def grouped(self, order: np.ndarray, shapes: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
        """The order as it is."""
        return order


class Bounded(NamedTuple):
    """The aspect ratio stays: the shorter side becomes `short` px, or less where the longer one would exceed `longest`.

    A batch is as high and as wide as its largest images, rounded up to a multiple of `multiple` px. Training batches
    are made of images that are all wider than high or all not, as far as these fill batches, so that little of them is
    padding: Faster R-CNN, GFL.
    """

    short: int
    longest: int
    multiple: int = 1

    @property
    def padded(self) -> bool:
        """True."""
        return True

    @property
    def typical(self) -> Size:
        """Of a photo of 640 x 480."""
        return self.of_batch(np.array([[480, 640]]), (0, 0, 0))

    def extents(self, shapes: np.ndarray) -> np.ndarray:
        """Rounded to whole px, at least one."""
        shapes = np.asarray(shapes, np.float64)
        scale = np.minimum(self.short / shapes.min(axis=1), self.longest / shapes.max(axis=1))
        return np.maximum(np.rint(shapes * scale[:, None]), 1).astype(np.int64)

    def largest(self, shapes: np.ndarray) -> Size:
        """That of a batch of all images."""
        return self.of_batch(shapes, (0, 0, 0))

    def of_batch(self, shapes: np.ndarray, place: tuple[int, int, int]) -> Size:
        """As high as the highest, as wide as the widest, rounded up."""
        height, width = self.extents(shapes).max(axis=0).tolist()
        return -(-height // self.multiple) * self.multiple, -(-width // self.multiple) * self.multiple

    def grouped(self, order: np.ndarray, shapes: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
        """Full batches of wide and of other images in random order; images left over share further ones at the end."""
        wide = shapes[order, 1] > shapes[order, 0]
        groups = [order[wide], order[~wide]]
        full = [len(group) // batch_size * batch_size for group in groups]
        batches = np.concatenate([group[:end] for group, end in zip(groups, full)]).reshape(-1, batch_size)
        rest = np.concatenate([group[end:] for group, end in zip(groups, full)])
        return np.concatenate([rng.permutation(batches).ravel(), rest])
