"""Teacher bounded regression (Chen et al. 2017, "Learning Efficient Object Detection Models with Knowledge
Distillation", section 3.3), on GFL and SSD: the rival of Localization Distillation that needs boxes alone."""

from __future__ import annotations

from mxnet import nd
from mxnet.ndarray import NDArray

from gan_kd.detectors.gfl.loss import GIOU, decode, integral, overlaps, taken, weights
from gan_kd.distill.base import Compared, Distiller, Seen
from gan_kd.distill.localization import share_of
from gan_kd.distill.localization_losses import bounded_regression
from gan_kd.recipe import BoundedRegression as Config


class BoundedRegression(Distiller):
    """The detector's box loss once more, of the positive priors where the student's box is not better than the
    teacher's by the margin: GFL's GIoU loss, or SSD's smooth L1 of the four offsets.

    Equation 6 has the squared distance of offsets; the detector's own loss makes a weight of 1 count as much as it.
    """

    name = "bounded_regression"
    needs = ("outputs", "assigned")
    places = ()

    def __init__(self, config: Config, compared: Compared) -> None:
        self.config = config

    def losses(self, seen: Seen, batch_size: int) -> dict[str, NDArray]:
        """`weight` x the box loss of these priors, weighted and divided as the detector's own."""
        assert seen.assigned is not None  # `needs`
        found = self._of_gfl(seen) if "share" in seen.assigned else self._of_ssd(seen)
        return {self.name: found * self.config.weight}

    def _of_gfl(self, seen: Seen) -> NDArray:
        assert seen.outputs is not None and seen.assigned is not None  # `needs`
        teacher, student = seen.outputs
        found = share_of(seen).positives
        if found is None:
            return 0 * nd.sum(student.boxes.slice_axis(axis=2, begin=0, end=1))
        own, others = (
            1 - overlaps(decode(found.centres, integral(taken(boxes, found.rows))), found.boxes)[1]
            for boxes in (student.boxes, teacher.boxes)
        )
        bounded = bounded_regression(own, others, self.config.margin)
        return nd.sum(bounded * weights(student.classes, found.rows)) / seen.assigned["weight"] * GIOU

    def _of_ssd(self, seen: Seen) -> NDArray:
        assert seen.outputs is not None and seen.assigned is not None  # `needs`
        teacher, student = seen.outputs
        own, others = (
            nd.sum(nd.smooth_l1(one.boxes - seen.assigned["offsets"], scalar=1.0), axis=2) for one in (student, teacher)
        )
        bounded = bounded_regression(own, others, self.config.margin)
        return nd.sum(bounded * (seen.assigned["classes"] > 0)) * seen.assigned["scale"]
