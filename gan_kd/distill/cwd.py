"""Channel-wise knowledge distillation (CWD; Shu et al. 2021, arXiv 2011.13256): where each channel is active."""

from __future__ import annotations

from mxnet import nd
from mxnet.ndarray import NDArray

from gan_kd.distill.base import Compared, Distiller, Seen
from gan_kd.recipe import Cwd


def distribution(feature_map: NDArray, temperature: float) -> NDArray:
    """(n, C, H, W) -> log of each channel's distribution over the cells, (n, C, H*W) (CWD, equation 3)."""
    return nd.log_softmax(feature_map.reshape((0, 0, -1)) / temperature, axis=2)


class ChannelWise(Distiller):
    """KL divergence from the teacher's to the student's distribution over the cells of each channel (equation 4).

    T^2 / C x sum over channels of KL, averaged over maps and samples. Over one cell it is 0.
    """

    name = "cwd"

    def __init__(self, config: Cwd, compared: Compared) -> None:
        self.weight, self.temperature = config.weight, config.temperature

    def losses(self, seen: Seen, batch_size: int) -> dict[str, NDArray]:
        """`weight` x that, summed over this device's samples / `batch_size`."""
        divergences = []
        for teacher, student in zip(seen.teacher, seen.student):
            real, fake = (distribution(m, self.temperature) for m in (teacher, student))
            divergences.append(nd.sum(nd.exp(real) * (real - fake)) / teacher.shape[1])
        share = self.weight * self.temperature**2 / (len(divergences) * batch_size)
        return {self.name: nd.add_n(*divergences) * share}
