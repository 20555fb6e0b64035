"""Plain feature imitation: the student's maps are drawn to the teacher's by their squared distance.

Not in the paper; the simplest rival of the adversary: what D has to learn to tell apart is measured directly.
"""

from __future__ import annotations

from mxnet import nd
from mxnet.ndarray import NDArray

from gan_kd.distill.base import Distiller, Maps


class FeatureImitation(Distiller):
    """Mean squared difference of student's and teacher's maps, averaged over maps and samples (FitNets, equation 3)."""

    name = "feature_imitation"

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def losses(self, teacher: Maps, student: Maps, batch_size: int) -> dict[str, NDArray]:
        """`weight` x mean over maps of mean (S - T)^2, summed over this device's samples / `batch_size`."""
        distances = [nd.sum(nd.mean(nd.square(s - t), axis=(1, 2, 3))) for t, s in zip(teacher, student)]
        return {self.name: nd.add_n(*distances) * (self.weight / (len(distances) * batch_size))}
