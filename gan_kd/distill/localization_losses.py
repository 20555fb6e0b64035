"""Losses on the outputs of a head whose box edges are distributions, one row a prior (Localization Distillation, Zheng
et al., arXiv 2102.12252), and their rivals on boxes and on maps.

The teacher's rows have no gradient. All functions keep the dtype of the student's rows and wait for no device.
"""

from __future__ import annotations

from mxnet import nd
from mxnet.ndarray import NDArray


def divergence(student: NDArray, teacher: NDArray, temperature: float) -> NDArray:
    """(R,) KL(teacher || student) of the distributions of logits (R,K) at a temperature."""
    own = nd.log_softmax(student / temperature, axis=1)
    wanted = nd.log_softmax(teacher.detach() / temperature, axis=1)
    return nd.sum(nd.exp(wanted) * (wanted - own), axis=1)


def edge_divergence(student: NDArray, teacher: NDArray, temperature: float = 10.0) -> NDArray:
    """(R,) Localization Distillation of box logits (R,4 n): the mean over the four edges of T^2 KL / n.

    Equation 3; the division by n and the mean over edges are the published program's, whose weights count on them.
    """
    edges, bins = 4 * len(student), student.shape[1] // 4
    rows = divergence(student.reshape((edges, bins)), teacher.reshape((edges, bins)), temperature)
    return nd.mean(rows.reshape((-1, 4)), axis=1) * (temperature**2 / bins)


def bounded_regression(student: NDArray, teacher: NDArray, margin: float) -> NDArray:
    """(R,) a student's box losses (R,) where it is not better than the teacher's (R,) by the margin, else 0.

    Teacher bounded regression (Chen et al. 2017, "Learning Efficient Object Detection Models with Knowledge
    Distillation", equation 6).
    """
    return student * (student.detach() + margin > teacher.detach())


def map_difference(student: NDArray, teacher: NDArray, region: NDArray) -> NDArray:
    """(1,) sum over the cells of a region (n,1,H,W) of the mean squared difference of maps (n,C,H,W) over channels."""
    squares = nd.mean(nd.square(student - teacher.detach()), axis=1, keepdims=True)
    return nd.sum(squares * region)
