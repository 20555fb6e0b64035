"""Imitation of the head's outputs: the student's predictions are drawn to the teacher's at the same anchors.

Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531) on every anchor, and the teacher's boxes where it sees an
object (Chen et al. 2017, "Learning Efficient Object Detection Models with Knowledge Distillation", sections 3.2, 3.3).
On YOLOv3 the teacher's objectness says where (Mehta and Ozturk 2018, arXiv 1805.06361, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mxnet import autograd, nd
from mxnet.ndarray import NDArray

from gan_kd.distill.base import Compared, Distiller, Seen
from gan_kd.distributed.cluster import here
from gan_kd.gluon.sync_bn import summed
from gan_kd.recipe import OutputImitation as Config


class OutputImitation(Distiller):
    """KL divergence of the classes' distributions, smooth L1 of the boxes weighted by the teacher's probability of an
    object; both divided by the sum of these probabilities over the whole batch, as SSD's losses are by the positive
    anchors.

    SSD: softmax of all anchors' classes, background included. YOLOv3, whose outputs have an `objectness`: every class
    is a distribution of its own, weighted as the boxes are, and objectness another one, at all anchors.
    """

    name = "outputs"
    needs = ("outputs",)
    places = ()

    def __init__(self, config: Config, compared: Compared) -> None:
        self.config = config

    def shares(self, seen: Sequence[Seen], batch_size: int) -> dict[str, list[NDArray]]:
        """`outputs`: weight x T^2 x sum of KL(teacher || student); `outputs_boxes`: weight x boxes x smooth L1."""
        temperature = self.config.temperature
        found = []
        for part in seen:
            assert part.outputs is not None  # `needs`
            compare = _independent if hasattr(part.outputs[0], "objectness") else _exclusive
            found.append(compare(*part.outputs, temperature))
        objects, divergences, distances = zip(*found)
        with autograd.pause():
            total = here().sum("objects", summed(objects)[0])
            # At least one object: in a batch without any, rounding would be divided by next to nothing.
            counts = [nd.maximum(total, 1).as_in_context(one.context) for one in objects]
        classes = [part * (self.config.weight * temperature**2) / n for part, n in zip(divergences, counts)]
        boxes = [part * (self.config.weight * self.config.boxes) / n for part, n in zip(distances, counts)]
        return {self.name: classes, f"{self.name}_boxes": boxes}


def _exclusive(teacher: Any, student: Any, temperature: float) -> tuple[NDArray, NDArray, NDArray]:
    """Of SSD's outputs: objects that the teacher sees, divergence, distance; (1,) each."""
    some = 1 - nd.softmax(teacher.classes, axis=2).slice_axis(axis=2, begin=0, end=1)
    real, fake = (nd.log_softmax(one.classes / temperature, axis=2) for one in (teacher, student))
    apart = nd.smooth_l1(student.boxes - teacher.boxes, scalar=1.0)
    return nd.sum(some), nd.sum(nd.exp(real) * (real - fake)), nd.sum(nd.broadcast_mul(apart, some))


def _independent(teacher: Any, student: Any, temperature: float) -> tuple[NDArray, NDArray, NDArray]:
    """The same of YOLOv3's; boxes as the head predicts them, places in the cell and logarithms of the sides."""
    some = nd.sigmoid(teacher.objectness)
    objectness = _divergence(teacher.objectness / temperature, student.objectness / temperature)
    classes = nd.broadcast_mul(_divergence(teacher.classes / temperature, student.classes / temperature), some)
    places = nd.sigmoid(student.centres) - nd.sigmoid(teacher.centres)
    apart = nd.smooth_l1(nd.concat(places, student.scales - teacher.scales, dim=2), scalar=1.0)
    return nd.sum(some), nd.sum(objectness) + nd.sum(classes), nd.sum(nd.broadcast_mul(apart, some))


def _divergence(real: NDArray, fake: NDArray) -> NDArray:
    """KL divergence of the two-valued distributions of these logits, element by element."""
    return nd.sigmoid(real) * (real - fake) - nd.Activation(real, "softrelu") + nd.Activation(fake, "softrelu")
