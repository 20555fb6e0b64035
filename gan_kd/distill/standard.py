"""Maps with standardised channels: each channel of a map counts alike, whatever its scale."""

from __future__ import annotations

from collections.abc import Sequence

from mxnet import nd
from mxnet.ndarray import NDArray

from gan_kd.distill.base import Maps, Seen
from gan_kd.distributed.cluster import here
from gan_kd.gluon.sync_bn import summed

#: The teacher's statistics are those of so many batches, the first ones.
BATCHES = 12
#: Part of the map's own deviation that every channel's is enlarged by: a channel that hardly moves would be noise.
_SHARE = 0.05


class Standard:
    """z = (x - mean_c) / (deviation_c + 5% of the map's deviation), by the teacher's statistics of each channel.

    The statistics are those of the first `BATCHES` batches, all devices and workers together. The map's deviation is
    the root of the mean variance of its channels. Nothing has a gradient but x.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        self.channels = list(channels)
        self.batches = 0
        self._counts = [0.0] * len(self.channels)
        # Of each map: sums over samples and cells, and sums of squares, (2, C).
        self._sums = [nd.zeros((2, count)) for count in self.channels]
        self._known: list[tuple[NDArray, NDArray]] | None = None

    def see(self, seen: Sequence[Seen]) -> None:
        """Count a batch of the teacher's maps, as long as they are the first ones."""
        if self.batches >= BATCHES:
            return
        for k, parts in enumerate(zip(*(part.teacher for part in seen))):
            total = summed([
                nd.stack(nd.sum(m, axis=1, exclude=True), nd.sum(nd.square(m), axis=1, exclude=True)) for m in parts
            ])[0]  # fmt: skip
            moved = here().sum(f"standard{k}", total).as_in_context(self._sums[k].context)
            self._sums[k] = self._sums[k].astype(moved.dtype) + moved
            self._counts[k] += here().total([sum(m.size // m.shape[1] for m in parts)])[0]
        self.batches += 1
        self._known = None

    def __call__(self, maps: Maps) -> Maps:
        """The maps (n, C, S, S) of one device, standardised."""
        found = []
        for x, (mean, scale) in zip(maps, self._statistics()):
            mean, scale = (v.as_in_context(x.context).astype(x.dtype) for v in (mean, scale))
            found.append(nd.broadcast_mul(nd.broadcast_sub(x, mean), scale))
        return found

    def _statistics(self) -> list[tuple[NDArray, NDArray]]:
        """Mean and 1 / deviation of each map, (1, C, 1, 1)."""
        if self._known is None:
            self._known = []
            for sums, count in zip(self._sums, self._counts):
                mean = sums[0] / count
                variance = nd.maximum(sums[1] / count - nd.square(mean), 0)
                deviation = nd.sqrt(variance) + _SHARE * nd.sqrt(nd.mean(variance)) + 1e-12
                self._known.append((mean.reshape((1, -1, 1, 1)), (1 / deviation).reshape((1, -1, 1, 1))))
        return self._known

    def state(self) -> dict[str, NDArray]:
        """Sums and counts, for `load_state`."""
        counts = nd.array([self.batches, *self._counts], dtype="float64")
        return {"counts": counts, **{str(k): sums for k, sums in enumerate(self._sums)}}

    def load_state(self, state: dict[str, NDArray]) -> None:
        """Put back what `state` gave."""
        batches, *self._counts = state["counts"].asnumpy().tolist()
        self.batches, self._known = int(batches), None
        self._sums = [state[str(k)] for k in range(len(self.channels))]
