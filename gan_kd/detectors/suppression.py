"""Non-maximum suppression, one for all families."""

from __future__ import annotations

from mxnet.gluon import HybridBlock

_LEAST_SCORE = 0.01  # of a candidate


class Suppression(HybridBlock):
    """scores (N,A,C), boxes (N,A,4) -> ids (N,K,1), scores (N,K,1), boxes (N,K,4), corners in the unit of the boxes.

    Rows are ordered by score after non-maximum suppression within each class; what is not used is -1.

    count, classes: A and C. nms: overlap in (0,1) above which the weaker of
    two boxes falls; nms_topk: boxes that take part (-1: all); post_nms: K.
    """

    def __init__(self, count: int, classes: int, nms: float = 0.45, nms_topk: int = 400, post_nms: int = 100) -> None:
        super().__init__()
        self.count, self.candidates = count, count * classes
        self.nms = {"overlap_thresh": nms, "topk": nms_topk, "valid_thresh": _LEAST_SCORE}
        self.post_nms = post_nms

    def hybrid_forward(self, F, scores, boxes):  # type: ignore[no-untyped-def]
        # Candidate c * A + a is anchor a as class c. Those that take part are taken out first: suppression would
        # copy and sort rows of all. They stay in the order of candidates, which decides between equal scores.
        scores = F.flatten(F.transpose(scores, (0, 2, 1)))
        scores = F.where(scores > self.nms["valid_thresh"], scores, F.zeros_like(scores))  # nan cannot be sorted
        wanted = max(self.nms["topk"], self.post_nms)
        if self.nms["topk"] > 0 and wanted < self.candidates:
            chosen = F.sort(F.topk(scores, k=wanted, dtype="int32"), axis=1)
        else:
            all_ = F.cast(F.contrib.arange_like(scores, axis=1), "int32")
            chosen = F.broadcast_like(all_.expand_dims(0), scores)
        image = F.cast(F.contrib.arange_like(chosen, axis=0), "int32")
        image = F.broadcast_like(image.expand_dims(1), chosen)
        anchor = chosen % self.count
        rows = F.concat(
            (F.cast(chosen - anchor, "float32") / self.count).expand_dims(2),
            F.gather_nd(scores, F.stack(image, chosen)).expand_dims(2),
            F.gather_nd(boxes, F.stack(image, anchor)),
            dim=2,
        )
        rows = F.contrib.box_nms(rows, id_index=0, score_index=1, coord_start=2, **self.nms)
        rows = rows.slice_axis(axis=1, begin=0, end=self.post_nms)
        return tuple(rows.slice_axis(axis=2, begin=i, end=j) for i, j in ((0, 1), (1, 2), (2, 6)))
