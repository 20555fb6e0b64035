"""Batches of a data set, the same ones whatever the number of workers and wherever an epoch is entered.

Which samples a batch holds and what the augmentations draw follow from (seed, epoch, index) alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from gan_kd.data.images import reducible
from gan_kd.data.transforms import TrainTransform, ValTransform, render
from gan_kd.data.workers import Pool, Slot, WorkerPolicy
from gan_kd.errors import RunError, UsageError, UserError
from gan_kd.recipe import Train


class TrainBatch(NamedTuple):
    images: np.ndarray  # (B, 3, S, S) float32, normalised
    cls_targets: np.ndarray  # (B, A) float32
    box_targets: np.ndarray  # (B, A, 4) float32


class ValBatch(NamedTuple):
    images: np.ndarray  # (B, 3, S, S) float32, normalised
    indices: np.ndarray  # (B,) int64, into the data set


class Dataset(Protocol):
    """What the loader needs of a data set: picklable, and of `records[i]` the file `image`, `width` and `height`."""

    @property
    def records(self) -> Sequence[Any]: ...

    def __len__(self) -> int: ...

    def image(self, index: int, reduction: int = 1, /) -> np.ndarray: ...

    def label(self, index: int, /) -> np.ndarray: ...


def worker_policy(train: Train) -> WorkerPolicy:
    """What a recipe says of loader workers that fail."""
    return WorkerPolicy(train.worker_timeout, train.on_worker_failure == "restart")


class Loader:
    """Batches made by `num_workers` processes, or by this one if that is 0: slower, with full tracebacks.

    For training the order is a permutation drawn from (seed, epoch) and a last incomplete batch is dropped;
    for evaluation the order is the data set's and the last batch is shorter. Workers live until `close()`,
    the end of the context or of the program, or garbage collection.

    Raises UsageError where the images do not fill one training batch. Iterating raises RunError where an image cannot
    be prepared, WorkerFailure where a worker dies or hangs and the policy gives up; a UserError of the data set is
    passed on.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: TrainTransform | ValTransform,
        batch_size: int,
        num_workers: int,
        seed: int,
        train: bool,
        share: tuple[int, int] = (0, 1),
        policy: WorkerPolicy = WorkerPolicy(),  # noqa: B008  (immutable)
    ) -> None:
        """share: (k, n) makes of every batch the k-th of n parts, which differ by one sample at most, in order."""
        if train and len(dataset) < batch_size:
            raise UsageError(
                f"the batch size is {batch_size}, but there are only {len(dataset)} training images: lower it"
            )
        self._samples = _Samples(dataset, transform, seed)
        self._size = batch_size
        self._train = train
        self._share = share
        shapes = [(-(-batch_size // share[1]), *shape) for shape in self._samples.shapes]
        self._pool = Pool(self._samples.write, shapes, num_workers, policy, self._samples.name) if num_workers else None
        self._slot = [] if num_workers else [np.empty(shape, np.float32) for shape in shapes]

    def __len__(self) -> int:
        """Batches in an epoch."""
        samples = len(self._samples.dataset)
        return samples // self._size if self._train else -(-samples // self._size)

    def order(self, epoch: int) -> np.ndarray:
        """The samples of an epoch in order, (samples,) int64; batch k begins at k * batch_size."""
        samples = len(self._samples.dataset)
        if not self._train:
            return np.arange(samples)
        drawn = np.random.default_rng([self._samples.seed, epoch]).permutation(samples)
        return drawn[: len(self) * self._size]

    def images(self, epoch: int, batch: int) -> list[str]:
        """Paths of the images of a batch, which counts from 0, in order."""
        return [self._samples.name(index) for index in self.order(epoch)[batch * self._size : (batch + 1) * self._size]]

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Any]:
        """The batches of an epoch (a number from 0) from `start_batch` on, TrainBatch or ValBatch.

        The arrays are views of memory that is used again: they are valid until the next batch is asked for.
        One epoch runs at a time; an abandoned one needs no care, the next can be started.
        """
        order = self.order(epoch)
        part, parts = self._share
        batches = [
            np.array_split(order[k * self._size : (k + 1) * self._size], parts)[part]
            for k in range(start_batch, len(self))
        ]
        slots = self._pool.fill(epoch, batches) if self._pool else self._fill(epoch, batches)
        for indices, slot in zip(batches, slots):
            arrays = [array[: len(indices)] for array in slot]
            yield TrainBatch(*arrays) if self._train else ValBatch(arrays[0], indices)

    def close(self) -> None:
        """Ends the workers; idempotent."""
        if self._pool:
            self._pool.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _fill(self, epoch: int, batches: Sequence[np.ndarray]) -> Iterator[Slot]:
        for indices in batches:
            for row, index in enumerate(indices.tolist()):
                self._samples.write(self._slot, row, epoch, index)
            yield self._slot


class _Samples(NamedTuple):
    """What turns an index into a row of a batch, in a worker or here."""

    dataset: Dataset
    transform: TrainTransform | ValTransform
    seed: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of a sample's arrays."""
        image = (3, self.transform.size, self.transform.size)
        if isinstance(self.transform, ValTransform):
            return [image]
        anchors = len(self.transform.targets)
        return [image, (anchors,), (anchors, 4)]

    def name(self, index: int) -> str:
        """The file of a sample's image."""
        return str(self.dataset.records[index].image)

    def write(self, slot: Slot, row: int, epoch: int, index: int) -> None:
        try:
            if isinstance(self.transform, ValTransform):
                slot[0][row], _ = self.transform(self.dataset.image(index))
            else:
                self._write_train(slot, row, epoch, index, self.transform)
        except UserError:
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise RunError(f"{self.name(index)}: cannot be made ready for the network: {problem}") from error

    def _write_train(self, slot: Slot, row: int, epoch: int, index: int, transform: TrainTransform) -> None:
        # index + 1, since [seed, epoch, 0] seeds like [seed, epoch], from which the order is drawn
        rng = np.random.default_rng([self.seed, epoch, index + 1])
        record = self.dataset.records[index]
        label = self.dataset.label(index)
        look, label = transform.draw(label, record.width, record.height, rng, reducible(record.image))
        render(self.dataset.image(index, look.reduction), look, slot[0][row])
        transform.targets.write(label[:, :4], label[:, 4], slot[1][row], slot[2][row])
