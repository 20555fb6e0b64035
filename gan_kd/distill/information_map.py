"""The information map: where the teacher's maps hold most, the student has to agree with them most.

Li Jiangnan et al., Research of YOLOv3 Based on Knowledge Distillation, Computer Engineering and Applications 58(17),
2022, of which only the abstract is known: it names the map as the supervision signal of distillation at the outputs of
feature extraction and of feature fusion, and does not define it. This is our reading, near to the spatial attention of
FGD (Yang et al. 2022, arXiv 2111.11837, equation 3).
"""

from __future__ import annotations

from mxnet import nd
from mxnet.ndarray import NDArray

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
    if weighting == "none":
        return nd.ones((len(feature_map), cells), ctx=feature_map.context, dtype=feature_map.dtype)
    return _of_mean_one(energy(feature_map) ** power)


def objectness(objects: NDArray, classes: NDArray, power: float = 1.0) -> NDArray:
    """The map of what a head sees: (n, cells, anchors, 1) and (n, cells, anchors, C) logits -> (n, cells), of mean 1.

    The largest over the anchors of a cell of objectness x most probable class, to this power.
    """
    scores = nd.sigmoid(objects.squeeze(axis=3)) * nd.max(nd.sigmoid(classes), axis=3)
    return _of_mean_one(nd.max(scores, axis=2) ** power)


def relative_error(teacher: NDArray, student: NDArray, weights: NDArray) -> NDArray:
    """Weighted squared distance of two maps (n, C, H, W) as a share of the teacher's energy, of each sample: (n,).

    Maps differ 10,000-fold in energy; as shares they count alike. A student of zeros has 1 without weighting.
    """
    return nd.mean(weights * energy(student - teacher), axis=1) / (nd.mean(energy(teacher), axis=1) + _LEAST)


def _of_mean_one(values: NDArray) -> NDArray:
    return nd.broadcast_div(values + _LEAST, nd.mean(values, axis=1, keepdims=True) + _LEAST)
