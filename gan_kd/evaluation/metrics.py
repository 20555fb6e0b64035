"""Average precision as PASCAL VOC and COCO define it. Nothing here needs MXNet."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gan_kd.errors import Diverged


@dataclass(frozen=True)
class Result:
    """What a metric measured, in percent; a class without ground truth has nan and is left out of the mean.

    ap: AP by class name, in the order of the classes. map: mean over the classes.
    summary: further numbers of the metric by name (COCO: AP50, AP75, ...), empty for VOC.
    """

    ap: dict[str, float]
    map: float
    summary: dict[str, float] = field(default_factory=dict)


def mean_of_known(values: object) -> float:
    """Mean of the values that are not nan; nan where there is none. values: anything `np.asarray` takes."""
    array = np.asarray(values, dtype=np.float64)
    known = array[~np.isnan(array)]
    return float(known.mean()) if known.size else float("nan")


def checked_detections(detections: np.ndarray, num_classes: int, image: str) -> np.ndarray:
    """The detections of an image as float64 (K, 6), without the padding rows (class < 0).

    detections: (K, 6) x0, y0, x1, y1, class, score. image: its name, for the message.
    Diverged where a value is nan or infinite: any comparison with nan is false, so such a box slips through
    thresholds and can be taken for a hit. ValueError where a class is not below num_classes.
    """
    array = np.asarray(detections, dtype=np.float64).reshape(-1, 6)
    if not np.isfinite(array).all():
        raise Diverged(
            f"the detections of {image} hold nan or infinite values, so the network's weights are broken: "
            "evaluate an earlier checkpoint, or train again with a lower learning rate"
        )
    array = array[array[:, 4] >= 0]
    if (array[:, 4] >= num_classes).any():
        raise ValueError(f"{image} has a detection of class {int(array[:, 4].max())} of {num_classes}")
    return array
