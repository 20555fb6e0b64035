"""The information map: where the teacher's maps hold most, the student has to agree with them most.

Li Jiangnan et al., Research of YOLOv3 Based on Knowledge Distillation, Computer Engineering and Applications 58(17),
2022, of which only the abstract is known: it names the map as the supervision signal of distillation at the outputs of
feature extraction and of feature fusion, and does not define it. This is our reading, near to the spatial attention of
FGD (Yang et al. 2022, arXiv 2111.11837, equation 3).
"""

from __future__ import annotations

from mxnet import nd
from mxnet.ndarray import NDArray

from gan_kd.distill.base import Compared, Distiller, Seen
from gan_kd.recipe import InformationMap as Config

#: Keeps a map of zeros from a division by zero; energies of trained maps are above 1e-6.
_LEAST = 1e-12
#: FGD's temperature of the softmax.
_TEMPERATURE = 0.5


def energy(feature_map: NDArray) -> NDArray:
    """(n, C, H, W) -> (n, H*W): squares averaged over channels."""
    return nd.mean(nd.square(feature_map), axis=1).reshape((0, -1))


def information(feature_map: NDArray, weighting: str, power: float = 1.0) -> NDArray:
    """The map of each sample, (n, C, H, W) -> (n, H*W), of mean 1.

    weighting: energy (to this power, 0 being no weighting), softmax (of the mean magnitude, as FGD) or none.
    """
    cells = feature_map.shape[2] * feature_map.shape[3]
    if weighting == "softmax":
        magnitude = nd.mean(nd.abs(feature_map), axis=1).reshape((0, -1))
        return nd.softmax(magnitude / _TEMPERATURE, axis=1) * cells
    return of_mean_one(energy(feature_map) ** (power if weighting == "energy" else 0))


def of_mean_one(values: NDArray) -> NDArray:
    """(n, cells) by the mean of each sample."""
    return nd.broadcast_div(values + _LEAST, nd.mean(values, axis=1, keepdims=True) + _LEAST)


def relative_error(teacher: NDArray, student: NDArray, weights: NDArray) -> NDArray:
    """Weighted squared distance of two maps (n, C, H, W) as a share of the teacher's energy, of each sample: (n,).

    Maps differ 10,000-fold in energy; as shares they count alike. A student of zeros has 1 without weighting.
    """
    return nd.mean(weights * energy(student - teacher), axis=1) / (nd.mean(energy(teacher), axis=1) + _LEAST)


class InformationMap(Distiller):
    """Relative error of the student's maps weighted by the information map, averaged over maps and samples."""

    name = "information_map"

    def __init__(self, config: Config, compared: Compared) -> None:
        self.config = config

    def losses(self, seen: Seen, batch_size: int) -> dict[str, NDArray]:
        """`weight` x mean over maps of `relative_error`, summed over this device's samples / `batch_size`."""
        errors = []
        for teacher, student in zip(seen.teacher, seen.student):
            errors.append(nd.sum(relative_error(teacher, student, self.weights(teacher, seen))))
        return {self.name: nd.add_n(*errors) * (self.config.weight / (len(errors) * batch_size))}

    def weights(self, teacher: NDArray, seen: Seen) -> NDArray:
        """The information map of one of the teacher's maps, (n, H*W)."""
        return information(teacher, self.config.weighting, self.config.power)


class ObjectnessMap(InformationMap):
    """The same with weighting objectness: what the teacher's head of a YOLOv3 is surest of in each cell, of mean 1."""

    needs = ("outputs",)

    def weights(self, teacher: NDArray, seen: Seen) -> NDArray:
        """Greatest objectness x class probability of a cell's anchors."""
        assert seen.outputs is not None  # `needs`
        return of_mean_one(seen.outputs[0].certainty(teacher.shape[2] * teacher.shape[3]))
