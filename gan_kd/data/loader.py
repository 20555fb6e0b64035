"""Batches of a data set, the same ones whatever the number of workers and wherever an epoch is entered.

Which samples a batch holds and what the augmentations draw follow from (seed, epoch, index) alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gan_kd.data.batch import Array, Dataset, Regions, Sample, TrainBatch, Transform, ValBatch
from gan_kd.data.sizes import Size
from gan_kd.data.workers import Pool, Request, Slot, WorkerPolicy, memory_of, views
from gan_kd.errors import RunError, UsageError, UserError
from gan_kd.recipe import Train

_IMAGE, _TRUTH, _EXTENT, _TARGETS = range(4)  # of a slot's arrays; the targets are the rest


def worker_policy(train: Train) -> WorkerPolicy:
    """What a recipe says of loader workers that fail."""
    return WorkerPolicy(train.worker_timeout, train.on_worker_failure == "restart")


class Loader:
    """Batches made by `num_workers` processes, or by this one if that is 0: slower, with full tracebacks.

    For training the order is a permutation drawn from (seed, epoch), grouped as the transform's sizes want it, and a
    last incomplete batch is dropped; for evaluation the order is the data set's and the last batch is shorter. Workers
    live until `close()`, the end of the context or of the program, or garbage collection.

    Raises UsageError where the images do not fill one training batch. Iterating raises RunError where an image cannot
    be prepared, WorkerFailure where a worker dies or hangs and the policy gives up; a UserError of the data set is
    passed on.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Transform,
        batch_size: int,
        num_workers: int,
        seed: int,
        train: bool,
        share: tuple[int, int] = (0, 1),
        policy: WorkerPolicy = WorkerPolicy(),  # noqa: B008  (immutable)
        regions: Sequence[Regions] = (),
    ) -> None:
        """share: (k, n) makes of every batch the k-th of n parts, which differ by one sample at most, in order.

        regions: what a training batch holds for distillers beside the targets.
        """
        if train and len(dataset) < batch_size:
            raise UsageError(
                f"the batch size is {batch_size}, but there are only {len(dataset)} training images: lower it"
            )
        self._shapes = np.array([(record.height, record.width) for record in dataset.records]).reshape(-1, 2)
        most = max((len(dataset.label(index)) for index in range(len(dataset))), default=0) if train else 0
        most *= transform.images
        rows = -(-batch_size // share[1])
        self.regions = tuple(regions)
        self._samples = _Samples(dataset, transform, seed, rows, most, self.regions)
        self._size = batch_size
        self._train = train
        self._share = share
        largest = transform.sizes.largest(self._shapes) if len(dataset) else (1, 1)
        memory = memory_of(self._samples.layout(largest))
        self._pool = Pool(self._samples, memory, num_workers, policy) if num_workers else None
        self._memory = bytearray(0 if num_workers else memory)

    def __len__(self) -> int:
        """Batches in an epoch."""
        samples = len(self._samples.dataset)
        return samples // self._size if self._train else -(-samples // self._size)

    def order(self, epoch: int) -> np.ndarray:
        """The samples of an epoch in order, (samples,) int64; batch k begins at k * batch_size."""
        samples = len(self._samples.dataset)
        if not self._train:
            return np.arange(samples)
        rng = np.random.default_rng([self._samples.seed, epoch])
        drawn = self._samples.transform.sizes.grouped(rng.permutation(samples), self._shapes, self._size, rng)
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
        requests = [
            self._request(epoch, k, order[k * self._size : (k + 1) * self._size]) for k in range(start_batch, len(self))
        ]
        slots = self._pool.fill(requests) if self._pool else self._fill(requests)
        padded = self._samples.transform.sizes.padded
        for request, slot in zip(requests, slots):
            images, truth, extents, *rest = (array[: len(request.indices)] for array in slot)
            shown = extents if padded else None
            if self._train:
                targets, regions = self._samples.parts(rest, request.size)
                yield TrainBatch(images, truth, tuple(targets), shown, regions)
            else:
                yield ValBatch(images, np.array(request.indices), shown)

    def close(self) -> None:
        """Ends the workers; idempotent."""
        if self._pool:
            self._pool.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _request(self, epoch: int, number: int, whole: np.ndarray) -> Request:
        """What is asked for of batch `number`: this loader's part, at the size of the whole."""
        part, parts = self._share
        size = self._samples.transform.sizes.of_batch(self._shapes[whole], (self._samples.seed, epoch, number))
        return Request(epoch, size, np.array_split(whole, parts)[part].tolist())

    def _fill(self, requests: Sequence[Request]) -> Iterator[Slot]:
        for request in requests:
            slot = views(self._memory, self._samples.layout(request.size))
            for row, index in enumerate(request.indices):
                self._samples.write(slot, row, request.epoch, index)
            yield slot


class _Samples(NamedTuple):
    """What turns an index into a row of a batch, in a worker or here."""

    dataset: Dataset
    transform: Transform
    seed: int
    rows: int  # of a slot
    objects: int  # most of an image
    regions: tuple[Regions, ...]

    def layout(self, size: Size) -> list[Array]:
        """The arrays of a batch of this size."""
        image = ((3, *size), np.float32)
        arrays = [
            image,
            ((self.objects, 5), np.float32),
            ((2,), np.float32),
            *self.transform.arrays(*size, self.objects),
            *(array for marked in self.regions for array in marked.arrays(*size)),
        ]
        return [((self.rows, *shape), dtype) for shape, dtype in arrays]

    def parts(self, arrays: Slot, size: Size) -> tuple[Slot, tuple[tuple[np.ndarray, ...], ...]]:
        """The arrays behind the extents as the transform's targets and those of each of the regions."""
        targets, rest = np.split(np.arange(len(arrays)), [len(self.transform.arrays(*size, self.objects))])
        ends = np.cumsum([len(marked.arrays(*size)) for marked in self.regions])
        each = np.split(rest, ends)[:-1]
        return [arrays[k] for k in targets], tuple(tuple(arrays[k] for k in one) for one in each)

    def name(self, index: int) -> str:
        """The file of a sample's image."""
        return str(self.dataset.records[index].image)

    def write(self, slot: Slot, row: int, epoch: int, index: int) -> None:
        """Make sample `index` of an epoch a row of a batch."""
        sample = Sample(self.dataset, index, epoch)
        # index + 1, since [seed, epoch, 0] seeds like [seed, epoch], from which the order is drawn
        rng = np.random.default_rng([self.seed, epoch, index + 1])
        try:
            image = slot[_IMAGE][row]
            height, width = image.shape[1:]
            targets, regions = self.parts(slot[_TARGETS:], (height, width))
            objects = self.transform.write(sample, rng, image, [array[row] for array in targets])
            for marked, arrays in zip(self.regions, regions):
                known = objects if objects is not None else np.empty((0, 5), np.float32)
                marked.write(known, height, width, [array[row] for array in arrays])
            slot[_TRUTH][row] = -1
            if objects is not None:
                slot[_TRUTH][row, : len(objects)] = objects
            if self.transform.sizes.padded:
                shape = np.array([[sample.record.height, sample.record.width]])
                slot[_EXTENT][row] = self.transform.sizes.extents(shape)[0]
        except UserError:
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise RunError(f"{self.name(index)}: cannot be made ready for the network: {problem}") from error
