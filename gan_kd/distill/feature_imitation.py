"""Plain feature imitation: the student's maps are drawn to the teacher's by their squared distance.

Not in the paper; the simplest rival of the adversary: what D has to learn to tell apart is measured directly.
"""

from __future__ import annotations

from collections.abc import Sequence

from mxnet import nd
from mxnet.ndarray import NDArray

from gan_kd.distill.base import Compared, Distiller, Seen
from gan_kd.distill.standard import Standard
from gan_kd.gluon.optim import Position
from gan_kd.recipe import FeatureImitation as Config


class FeatureImitation(Distiller):
    """Mean squared difference of student's and teacher's maps, averaged over maps and samples (FitNets, equation 3).

    `input: standard` compares standardised channels, which keeps a few strong channels from being all of the loss.
    """

    name = "feature_imitation"

    def __init__(self, config: Config, compared: Compared) -> None:
        self.weight = config.weight
        self.standard = Standard(compared.channels) if config.input == "standard" else None

    def update(self, seen: Sequence[Seen], batch_size: int, position: Position) -> dict[str, list[NDArray]]:
        """Nothing to train; the teacher's statistics are counted."""
        if self.standard is not None:
            self.standard.see(seen)
        return {}

    def losses(self, seen: Seen, batch_size: int) -> dict[str, NDArray]:
        """`weight` x mean over maps of mean (S - T)^2, summed over this device's samples / `batch_size`."""
        teacher, student = seen.teacher, seen.student
        if self.standard is not None:
            teacher, student = self.standard(teacher), self.standard(student)
        distances = [nd.sum(nd.mean(nd.square(s - t), axis=(1, 2, 3))) for t, s in zip(teacher, student)]
        return {self.name: nd.add_n(*distances) * (self.weight / (len(distances) * batch_size))}

    def state(self) -> dict[str, NDArray]:
        """The teacher's statistics, where they are used."""
        return self.standard.state() if self.standard is not None else {}

    def load_state(self, state: dict[str, NDArray]) -> None:
        """Put back what `state` gave."""
        if self.standard is not None:
            self.standard.load_state(state)
