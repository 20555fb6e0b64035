"""Teacher bounded regression on GFL (Chen et al. 2017, "Learning Efficient Object Detection Models with Knowledge
Distillation", section 3.3): the rival of Localization Distillation that needs boxes alone."""

from __future__ import annotations

from mxnet import nd
from mxnet.ndarray import NDArray

from gan_kd.detectors.gfl.loss import GIOU, decode, integral, overlaps, taken, weights
from gan_kd.distill.base import Compared, Distiller, Seen
from gan_kd.distill.localization import share_of
from gan_kd.distill.localization_losses import bounded_regression
from gan_kd.recipe import BoundedRegression as Config


class BoundedRegression(Distiller):
    """The detector's GIoU loss once more, of the positive priors where the student's box is not better than the
    teacher's by the margin."""

    name = "bounded_regression"
    needs = ("outputs", "assigned")
    places = ()

    def __init__(self, config: Config, compared: Compared) -> None:
        self.config = config

    def losses(self, seen: Seen, batch_size: int) -> dict[str, NDArray]:
        """`weight` x GIoU loss, weighted and divided as the detector's own."""
        assert seen.outputs is not None and seen.assigned is not None  # `needs`
        teacher, student = seen.outputs
        found = share_of(seen).positives
        if found is None:
            return {self.name: 0 * nd.sum(student.boxes.slice_axis(axis=2, begin=0, end=1))}
        own, others = (
            1 - overlaps(decode(found.centres, integral(taken(boxes, found.rows))), found.boxes)[1]
            for boxes in (student.boxes, teacher.boxes)
        )
        bounded = bounded_regression(own, others, self.config.margin)
        counted = weights(student.classes, found.rows)
        return {self.name: nd.sum(bounded * counted) / seen.assigned["weight"] * (GIOU * self.config.weight)}
