"""Attention transfer by cosine similarity: the paper's "cosine attention", which it names and does not define."""

from __future__ import annotations

from mxnet import nd
from mxnet.ndarray import NDArray

from gan_kd.distill.base import Compared, Distiller, Seen
from gan_kd.recipe import CosineAttention as Config


def attention(feature_map: NDArray) -> NDArray:
    """Where a map is active: (n, C, H, W) -> (n, H*W), squares summed over channels, scaled to unit length."""
    energy = nd.sum(nd.square(feature_map), axis=1).reshape((0, -1))
    return nd.L2Normalization(energy, mode="instance")


def similarity(teacher: NDArray, student: NDArray) -> NDArray:
    """Cosine of the attention of two maps (n, C, H, W), C being free to differ, of each sample: (n,), from 0 to 1."""
    return nd.sum(attention(student) * attention(teacher), axis=1)


class CosineAttention(Distiller):
    """1 - cosine similarity of student's and teacher's attention, averaged over maps and samples.

    The paper gives the name and a table column (table 1, "+ cosine attention") only; the definition is our reading.
    """

    name = "cosine_attention"

    def __init__(self, config: Config, compared: Compared) -> None:
        self.weight = config.weight

    def losses(self, seen: Seen, batch_size: int) -> dict[str, NDArray]:
        """`weight` x mean over maps of (1 - cos), summed over this device's samples / `batch_size`."""
        distances = [nd.sum(1 - similarity(t, s)) for t, s in zip(seen.teacher, seen.student)]
        return {self.name: nd.add_n(*distances) * (self.weight / (len(distances) * batch_size))}
