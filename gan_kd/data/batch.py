"""What a batch is, and what makes a row of one: all that the loader knows of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from gan_kd.data.sizes import Sizes

#: Shape and dtype of an array.
Array = tuple[tuple[int, ...], type]


class TrainBatch(NamedTuple):
    """B images to train on; the arrays of a loader's batch are valid until the next one."""

    #: (B, 3, H, W) float32, normalised.
    images: np.ndarray
    #: (B, M, 5) float32 x0, y0, x1, y1, class of the objects in input px; rows in no use are -1.
    truth: np.ndarray
    #: What the family's loss compares with, (B, ...) each, as its transform makes them.
    targets: tuple[np.ndarray, ...]
    #: (B, 2) float32 height and width of each image in the batch, px; None where all fill it.
    extents: np.ndarray | None = None
    #: Of each of the loader's regions its arrays, (B, ...) each.
    regions: tuple[tuple[np.ndarray, ...], ...] = ()


class ValBatch(NamedTuple):
    """B images to detect in."""

    #: (B, 3, H, W) float32, normalised.
    images: np.ndarray
    #: (B,) int64, into the data set.
    indices: np.ndarray
    #: As of TrainBatch.
    extents: np.ndarray | None = None


class Dataset(Protocol):
    """What the loader needs of a data set: picklable, and of `records[i]` the file `image`, `width` and `height`."""

    @property
    def records(self) -> Sequence[Any]: ...

    def __len__(self) -> int: ...

    def image(self, index: int, reduction: int = 1, /) -> np.ndarray: ...

    def label(self, index: int, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Sample:
    """An image of a data set, which is read when it is asked for."""

    dataset: Dataset
    index: int
    #: Epochs of the network's training before this one.
    epoch: int = 0

    @property
    def record(self) -> Any:
        """Its file `image`, and its `width` and `height` in px."""
        return self.dataset.records[self.index]

    def label(self) -> np.ndarray:
        """(M, 6) float32 x0, y0, x1, y1, class, difficult."""
        return self.dataset.label(self.index)

    def image(self, reduction: int = 1) -> np.ndarray:
        """(H, W, 3) uint8 RGB, decoded at a fraction of its sides as of `images.read`."""
        return self.dataset.image(self.index, reduction)


class Transform(Protocol):
    """What makes a row of a batch of a sample: picklable, without MXNet, drawing from the given generator alone."""

    @property
    def sizes(self) -> Sizes:
        """How large the network's input is."""
        ...

    @property
    def images(self) -> int:
        """Images of the data set that one image of a batch may be made of."""
        ...

    def arrays(self, height: int, width: int, objects: int) -> list[Array]:
        """Shape and dtype of each array of a sample's targets in a batch of this size; no smaller batch needs more.

        objects: rows of the truth, the most that `write` can return.
        """
        ...

    def write(
        self, sample: Sample, rng: np.random.Generator, image: np.ndarray, targets: Sequence[np.ndarray]
    ) -> np.ndarray | None:
        """Fill `image`, (3, H, W) float32, and the arrays of its targets, all of which hold what was there before.

        Returns the objects that are left, (m, 5) x0, y0, x1, y1, class in input px; None where nothing is learned.
        """
        ...


class Regions(Protocol):
    """What marks for a distiller where an image's objects are: picklable, without MXNet, drawing nothing."""

    def arrays(self, height: int, width: int) -> list[Array]:
        """Shape and dtype of each array of a sample in a batch of this size; no smaller batch needs more."""
        ...

    def write(self, objects: np.ndarray, height: int, width: int, arrays: Sequence[np.ndarray]) -> None:
        """Fill the arrays of a sample, all of which hold what was there before.

        objects: (m, 5) x0, y0, x1, y1, class in input px, m may be 0.
        """
        ...
