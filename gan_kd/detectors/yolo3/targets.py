"""What YOLOv3's loss is computed against: for every object the anchor that should predict it, and how.

GluonCV writes every anchor's targets, 3.7 MB an image at 416 px and 80 classes; but those without an object hold
nothing. Here an image has a row an object, and the device spreads the rows (`loss.spread`). Without MXNet, as the
loader's workers are.
"""

from __future__ import annotations

import numpy as np

from gan_kd.detectors.yolo3.anchors import ANCHORS, STRIDES

#: Of a row: number of the anchor, -1 in a row that is not used; place of the centre in its cell (x, y); log of
#: width and height, by the anchor's; weight of the box; objectness; class.
ROW = 8


class YOLO3Targets:
    """Assigns each object to one anchor, with GluonCV's `YOLOV3PrefetchTargetGenerator` as the model.

    The anchor is the one of the nine that overlaps the object most when both are centred, in the cell of the object's
    centre. Of two objects on one anchor the later one counts. A box's weight is 2 - its share of the image's area.
    Boxes are cut off at the image's edge, where GluonCV's generator stops at the first negative coordinate and drops
    all objects behind it; one without an area inside the image has no row.

    Source: YOLOv3 (arXiv 1804.02767), section 2.1.
    """

    def __init__(self, size: int) -> None:
        """size: side of the square input in px, a multiple of 32."""
        self.size = size
        # In the order of the head: stride 32 first.
        self._anchors = ANCHORS[::-1].reshape(-1, 2)
        sides = np.array([size // stride for stride in reversed(STRIDES)])
        each = ANCHORS.shape[1]
        first = each * np.concatenate([[0], np.cumsum(sides**2)[:-1]])
        self._side = np.repeat(sides, each)  # of each of the nine anchors: cells of its map,
        self._first = (first[:, None] + np.arange(each)).reshape(-1)  # and its number in the first cell
        self._each = each

    def __call__(self, boxes: np.ndarray, labels: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
        """Rows of one image, float32 (K, 8), K at most M.

        boxes: (M, 4) corners in input px; labels: (M,) class numbers from 0; shares: (M,) of the object's image in a
        mixture, which become the objectness; None: 1.
        """
        boxes = np.clip(np.asarray(boxes, np.float32).reshape(-1, 4), 0, self.size)
        sides = boxes[:, 2:] - boxes[:, :2]
        inside = (sides > 0).all(axis=1)
        boxes, sides = boxes[inside], sides[inside]
        centres = boxes[:, :2] + sides * np.float32(0.5)
        best = self._best(sides)
        side = self._side[best, None]
        place = centres.astype(np.float64) / self.size * side
        cell = np.minimum(place.astype(np.int64), side - 1)  # rounding can put a centre on the far edge
        rows: np.ndarray = np.empty((len(boxes), ROW), np.float32)
        rows[:, 0] = self._first[best] + self._each * (cell[:, 1] * side[:, 0] + cell[:, 0])
        rows[:, 1:3] = place - cell
        rows[:, 3:5] = np.log(np.maximum(sides, 1) / self._anchors[best])
        rows[:, 5] = 2 - sides.prod(axis=1).astype(np.float64) / self.size**2
        rows[:, 6] = 1 if shares is None else np.asarray(shares)[inside]
        rows[:, 7] = np.asarray(labels)[inside]
        last = {anchor: row for row, anchor in enumerate(rows[:, 0].tolist())}
        return rows[list(last.values())]

    def _best(self, sides: np.ndarray) -> np.ndarray:
        """Which of the nine anchors overlaps each of (M, 2) widths and heights most, (M,)."""
        shared = np.minimum(sides[:, None], self._anchors).prod(axis=2)
        return (shared / (sides.prod(axis=1)[:, None] + self._anchors.prod(axis=1) - shared)).argmax(axis=1)
