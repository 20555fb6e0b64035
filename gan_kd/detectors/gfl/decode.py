"""From the logits of GFL's head to scores and boxes in px."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gan_kd.detectors.gfl import priors

#: Priors of a level that are decoded at most, those of the greatest class score.
MOST = 1000


class GFLDecoder(HybridBlock):
    """Class logits (N,A,C), box logits (N,A,4 n) -> scores (N,K,C), boxes (N,K,4), corners in px within the input.

    K priors, level after level: all A in their order, or of a level that has more than `most` its best ones, the best
    first. width, height: of the input, px. reg_max: n - 1.
    """

    def __init__(self, width: int, height: int, reg_max: int = 16, most: int = MOST) -> None:
        super().__init__()
        made = priors.make(priors.shapes(width, height))
        self.counts, self.most = made.counts, most
        self.kept = sum(min(count, most) for count in self.counts)
        with self.name_scope():
            self.centres = self.params.get_constant("centres", np.tile(made.centres, 2)[None])
            # Distances to the left and top edge count backwards.
            signs = np.array([-1, -1, 1, 1])
            self.strides = self.params.get_constant("strides", (made.strides[:, None] * signs)[None])
            self.steps = self.params.get_constant("steps", np.arange(reg_max + 1.0)[None, None, None])
            self.limits = self.params.get_constant("limits", np.array([[[width, height, width, height]]]))

    def hybrid_forward(
        self, F: Any, classes: Any, boxes: Any, centres: Any, strides: Any, steps: Any, limits: Any
    ) -> tuple[Any, Any]:
        scores = F.sigmoid(classes)
        shares = F.softmax(boxes.reshape((0, 0, 4, -1)), axis=-1)
        distances = F.sum(F.broadcast_mul(shares, steps), axis=-1)
        corners = F.broadcast_add(F.broadcast_mul(distances, strides), centres)
        corners = F.broadcast_minimum(F.relu(corners), limits)
        if max(self.counts) <= self.most:
            return scores, corners
        ends = np.cumsum(self.counts).tolist()
        levels = [self._best(F, scores, corners, end - count, end) for count, end in zip(self.counts, ends)]
        return tuple(F.concat(*parts, dim=1) for parts in zip(*levels))

    def _best(self, F: Any, scores: Any, boxes: Any, begin: int, end: int) -> tuple[Any, Any]:
        scores, boxes = (x.slice_axis(axis=1, begin=begin, end=end) for x in (scores, boxes))
        if end - begin <= self.most:
            return scores, boxes
        chosen = F.topk(F.max(scores, axis=2), k=self.most, dtype="int32")
        sample = F.broadcast_like(F.cast(F.contrib.arange_like(chosen, axis=0), "int32").expand_dims(1), chosen)
        return tuple(F.gather_nd(x, F.stack(sample, chosen)) for x in (scores, boxes))

    def to_onnx(self, nodes: Any) -> tuple[str, str]:
        """The same with ONNX's operators behind the head's predictions; names of scores and boxes.

        nodes: of `export.onnx`, which this room does not know.
        """
        arrays = {name: getattr(self, name).value.asnumpy() for name in ("centres", "strides", "steps", "limits")}
        centres, strides, steps, limits = (nodes.constant(array, np.float32) for array in arrays.values())
        classes, boxes = nodes.found
        scores = nodes.add("Sigmoid", classes)
        bins = nodes.add("Reshape", boxes, nodes.constant([0, 0, 4, arrays["steps"].size]))
        shares = nodes.add("Mul", nodes.add("Softmax", bins, axis=-1), steps)
        distances = nodes.add("ReduceSum", shares, nodes.constant([3]), keepdims=0)
        corners = nodes.add("Add", nodes.add("Mul", distances, strides), centres)
        corners = nodes.add("Min", nodes.add("Relu", corners), limits)
        if max(self.counts) <= self.most:
            return scores, corners
        levels: list[list[str]] = [[], []]
        for count, end in zip(self.counts, np.cumsum(self.counts).tolist()):
            place = [nodes.constant([value]) for value in (end - count, end, 1)]
            part = [nodes.add("Slice", array, *place) for array in (scores, corners)]
            if count > self.most:
                best = nodes.add("ReduceMax", part[0], axes=[2], keepdims=0)
                _, chosen = nodes.add_more(2, "TopK", best, nodes.constant([self.most]), axis=1)
                chosen = nodes.add("Unsqueeze", chosen, nodes.constant([2]))
                part = [nodes.add("GatherND", array, chosen, batch_dims=1) for array in part]
            for found, array in zip(levels, part):
                found.append(array)
        return tuple(nodes.add("Concat", *found, axis=1) for found in levels)


def suppress(
    scores: np.ndarray, boxes: np.ndarray, least: float = 0.05, overlap: float = 0.6, count: int = 100
) -> np.ndarray:
    """Detections (D,6) of one image, corners, score and class, best first, at most `count`.

    scores (K,C), boxes (K,4). Boxes that score above `least` take part; within a class one falls to a better one that
    it overlaps by more than `overlap`.
    """
    rows, classes = np.nonzero(scores > least)
    if not len(rows):
        return np.empty((0, 6), scores.dtype)
    found = np.concatenate([boxes[rows], scores[rows, classes, None], classes[:, None]], axis=1)
    kept = mx.nd.contrib.box_nms(
        mx.nd.array(found, dtype=scores.dtype), overlap_thresh=overlap, id_index=5, score_index=4, coord_start=0
    ).asnumpy()
    return kept[kept[:, 4] >= 0][:count]
