"""A Faster R-CNN taken apart and put together: GluonCV's network <-> extractor, adapters, head and decoder.

GluonCV's network takes other inputs in training than in detection, and once hybridized it keeps the graph of the mode
that it ran first, for one number of images. Here extractor, head and decoder are separate blocks, none of which
branches, and the sizes of the images come in beside the map, so that a padded image counts as large as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from gluoncv.model_zoo.rcnn.faster_rcnn.faster_rcnn import FasterRCNN
from mxnet import autograd
from mxnet.gluon import HybridBlock, Parameter

from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.faster_rcnn.sampler import RoISampler, RoITargets
from gan_kd.detectors.faster_rcnn.settings import STRIDE, Settings
from gan_kd.gluon import weights

#: What GluonCV adds to a file once its network has trained: constants of its targets.
_TARGETS = "_target_generator."


class Outputs(NamedTuple):
    """What the head gives in training: B images, N anchors, S sampled RoIs, P of them with boxes, C classes."""

    rpn_scores: Any  # (B,N) logits
    rpn_boxes: Any  # (B,N,4) offsets from the anchors
    class_scores: Any  # (B,S,C+1) logits, class 0 is the background
    box_offsets: Any  # (B,P,C,4)
    class_targets: Any  # (B,S), -1 to ignore
    box_targets: Any  # (B,P,C,4)
    box_masks: Any  # (B,P,C,4), 1 where an offset counts
    rois: Any  # (B,S,4) corners in px


class Extractor(HybridBlock):
    """Image (N,3,H,W) float32 -> [map (N,channels,ceil(H/16),ceil(W/16))].

    features: the layers of a backbone up to stride 16; their parameters are shared, not copied.
    """

    strides = [STRIDE]

    def __init__(self, features: HybridBlock, channels: int) -> None:
        super().__init__()
        self.features = features
        self.channels = [channels]

    def freeze(self) -> None:
        """Ends the gradients of its parameters."""
        self.collect_params().setattr("grad_req", "null")

    def hybrid_forward(self, F, x):  # type: ignore[no-untyped-def]
        return [self.features(x)]


class Head(HybridBlock):
    """Map (B,C,h,w), extents (B,2), truth (B,M,5), draws (B,K) -> Outputs, for training.

    extents: height and width of each image in px, without padding. truth: corners in px and class, rows of -1 are none.
    draws: uniform in [0,1), K at least proposals + M; they choose the RoIs (`RoISampler`). The blocks are those of a
    GluonCV FasterRCNN, with its parameters and their names in a file.
    """

    def __init__(self, net: FasterRCNN, settings: Settings) -> None:
        super().__init__()
        self.classes, self.settings = tuple(net.classes), settings
        self.rpn, self.top_features = net.rpn, net.top_features
        self.class_predictor, self.box_predictor = net.class_predictor, net.box_predictor
        self.class_decoder, self.box_decoder = net.cls_decoder, net.box_decoder
        with self.name_scope():
            self.sampler = RoISampler(settings.samples, settings.positive_iou, settings.positive_share)
            self.targets = RoITargets(len(self.classes), settings.positives)

    def weights(self) -> dict[str, Parameter]:
        """Parameters, and the anchors as allocated, by their names in a file of GluonCV."""
        named: dict[str, Parameter] = self._collect_params_with_prefix()
        return named

    def hybrid_forward(self, F, x, extents, truth, draws):  # type: ignore[no-untyped-def]
        numbers = self.settings
        rpn_scores, rpn_boxes, proposals = self.propose(F, x, extents, numbers.train_pre_nms, numbers.train_post_nms)
        boxes = F.slice_axis(truth, axis=-1, begin=0, end=4)
        labels = F.slice_axis(truth, axis=-1, begin=4, end=5)
        with autograd.pause():
            rois, samples, matches = self.sampler(proposals, boxes, draws)
            class_targets, box_targets, box_masks, chosen = self.targets(rois, samples, matches, labels, boxes)
            image = F.contrib.arange_like(chosen, axis=0) * numbers.samples
            chosen = F.reshape(F.broadcast_add(chosen, F.expand_dims(image, 1)), (-1,))
        seen = self.look(F, x, rois)
        class_scores = F.reshape(self.class_predictor(seen), (-1, numbers.samples, len(self.classes) + 1))
        box_offsets = self.box_predictor(F.take(F.flatten(seen), chosen))
        box_offsets = F.reshape(box_offsets, (-1, numbers.positives, len(self.classes), 4))
        return (
            F.squeeze(rpn_scores, axis=-1),
            rpn_boxes,
            class_scores,
            box_offsets,
            class_targets,
            box_targets,
            box_masks,
            rois,
        )

    def propose(self, F, x, extents, pre_nms, post_nms):  # type: ignore[no-untyped-def]
        """Map -> RPN scores (B,N,1) logits, boxes (B,N,4) offsets, proposals (B,post_nms,5): score and corners.

        Proposals are clipped to the image; where fewer are left the last rows are -1. No gradient goes through them.
        """
        anchors = self.rpn.anchor_generator(x)
        x = self.rpn.conv1(x)
        scores = F.reshape(F.transpose(self.rpn.score(x), (0, 2, 3, 1)), (0, -1, 1))
        boxes = F.reshape(F.transpose(self.rpn.loc(x), (0, 2, 3, 1)), (0, -1, 4))
        with autograd.pause():  # where nothing is compiled, backward through these operators would crash
            corners = self.rpn.region_proposer._box_decoder(F.stop_gradient(boxes), anchors)
            corners = clip(F, corners, extents)
            left, top, right, bottom = F.split(corners, axis=-1, num_outputs=4)
            least = self.settings.rpn_min_size
            small = (right - left + 1.0 < least) + (bottom - top + 1.0 < least)
            rated = F.sigmoid(F.stop_gradient(scores))
            rows = F.concat(F.where(small, -F.ones_like(rated), rated), corners, dim=-1)
            rows = F.contrib.box_nms(
                rows,
                overlap_thresh=self.settings.rpn_nms,
                topk=pre_nms,
                coord_start=1,
                score_index=0,
                force_suppress=True,
            )
            # A small map has fewer anchors than proposals are wanted.
            none = -F.ones_like(F.slice_axis(rows, axis=1, begin=0, end=1))
            rows = F.concat(rows, F.broadcast_axis(none, axis=1, size=post_nms), dim=1)
            proposals = F.stop_gradient(F.slice_axis(rows, axis=1, begin=0, end=post_nms))
        return scores, boxes, proposals

    def look(self, F, x, rois):  # type: ignore[no-untyped-def]
        """Map (B,C,h,w), RoIs (B,S,4) -> what the second stage sees of each, (B*S,D,1,1)."""
        image = F.expand_dims(F.contrib.arange_like(rois, axis=0), 1)
        image = F.broadcast_like(image, rois, lhs_axes=(1,), rhs_axes=(1,))
        rows = F.concat(F.reshape(image, (-1, 1)), F.reshape(rois, (-1, 4)), dim=-1)
        side = (self.settings.roi_size,) * 2
        if self.settings.roi == "pool":
            cells = F.ROIPooling(x, rows, side, 1 / STRIDE)
        else:
            cells = F.contrib.ROIAlign(x, rows, side, 1 / STRIDE, sample_ratio=2)
        return F.contrib.AdaptiveAvgPooling2D(self.top_features(cells), output_size=1)


class Decoder(HybridBlock):
    """Map (B,C,h,w), extents (B,2) -> ids (B,K,1), scores (B,K,1), boxes (B,K,4), corners in px, clipped to the image.

    Rows are ordered by score after non-maximum suppression within each class, at most K of an image; what is not used
    is -1. Equal to GluonCV's detections, clipped as its evaluation does, but for what GluonCV finds in proposals that
    do not exist.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def hybrid_forward(self, F, x, extents):  # type: ignore[no-untyped-def]
        head, numbers = self.head, self.head.settings
        _, _, proposals = head.propose(F, x, extents, numbers.test_pre_nms, numbers.test_post_nms)
        rois = F.slice_axis(proposals, axis=-1, begin=1, end=None)
        there = F.slice_axis(proposals, axis=-1, begin=0, end=1) >= 0
        seen = head.look(F, x, rois)
        scores = F.softmax(head.class_predictor(seen), axis=-1)
        ids, scores = head.class_decoder(F.reshape(scores, (-1, numbers.test_post_nms, len(head.classes) + 1)))
        scores = F.broadcast_mul(scores, there)
        offsets = F.reshape(head.box_predictor(seen), (-1, numbers.test_post_nms, len(head.classes), 4))
        offsets = F.transpose(offsets, (0, 2, 1, 3))
        regions = F.broadcast_axis(F.expand_dims(rois, 1), axis=1, size=len(head.classes))
        boxes = head.box_decoder(F.reshape(offsets, (1, -1, 4)), F.reshape(regions, (1, -1, 4)))
        boxes = F.reshape_like(boxes, offsets)
        ids, scores = [F.expand_dims(F.transpose(part, (0, 2, 1)), 3) for part in (ids, scores)]
        rows = F.contrib.box_nms(
            F.concat(ids, scores, boxes, dim=-1),
            overlap_thresh=numbers.nms,
            topk=numbers.nms_topk,
            valid_thresh=0.0001,
            id_index=0,
            score_index=1,
            coord_start=2,
        )
        rows = F.reshape(rows, (0, -3, 0))
        count = min(numbers.detections, numbers.test_post_nms * len(head.classes))
        best = F.topk(F.squeeze(F.slice_axis(rows, axis=2, begin=1, end=2), axis=2), k=count, axis=1)
        image = F.broadcast_like(F.expand_dims(F.contrib.arange_like(best, axis=0), 1), best)
        rows = F.gather_nd(rows, F.stack(image, best))
        ids, scores = [F.slice_axis(rows, axis=2, begin=i, end=i + 1) for i in (0, 1)]
        boxes = clip(F, F.slice_axis(rows, axis=2, begin=2, end=None), extents)
        there = F.broadcast_axis(scores >= 0, axis=2, size=4)
        return ids, scores, F.where(there, boxes, -F.ones_like(boxes))


class Detector(HybridBlock):
    """Image (N,3,H,W) float32, all of one size -> ids (N,K,1), scores (N,K,1), boxes (N,K,4), as Decoder.

    What is deployed after distillation: student, adapters where channels differ, head. The parts are shared with
    whoever made them: training them trains the detector.
    """

    def __init__(self, extractor: Extractor, adapters: Adapters | None, head: Head) -> None:
        super().__init__()
        self.extractor = extractor
        self.adapters = adapters
        self.head = head
        self.decoder = Decoder(head)

    def hybrid_forward(self, F, x):  # type: ignore[no-untyped-def]
        maps = self.extractor(x)
        if self.adapters is not None:
            maps = self.adapters(*maps)
        extents = F.cast(F.expand_dims(F.slice_axis(F.shape_array(x), axis=0, begin=2, end=4), 0), "float32")
        return self.decoder(*maps, extents)

    def weights(self) -> dict[str, Parameter]:
        """Parameters by their names in a file: GluonCV's, and `adapters.*`, which GluonCV does not know."""
        named = {**self.extractor._collect_params_with_prefix(), **self.head.weights()}
        if self.adapters is not None:
            named.update(self.adapters._collect_params_with_prefix("adapters"))
        return named

    def save(self, path: str | Path) -> None:
        """Writes a .params file, which GluonCV's FasterRCNN loads if there are no adapters; RunError on failure."""
        weights.write(self.weights(), path)

    def load(self, path: str | Path, what: str = "this detector") -> None:
        """Loads a file of `save` or of GluonCV's `save_parameters`.

        Raises UsageError where the file is broken, not finite, or of another network (`what` names this one).
        """
        arrays = weights.read(path, what)
        own = {name: array for name, array in arrays.items() if not name.startswith(_TARGETS)}
        weights.assign(self.weights(), own, path, what)


def clip(F: Any, boxes: Any, extents: Any) -> Any:
    """Boxes (B,N,4), corners in px, with every corner inside the image of extents (B,2), height and width."""
    window = F.expand_dims(F.tile(F.reverse(extents, axis=1), reps=(1, 2)), 1)
    return F.broadcast_minimum(F.maximum(boxes, 0.0), window)


def split(net: FasterRCNN, settings: Settings, channels: int) -> tuple[Extractor, Head]:
    """Extractor and head of a GluonCV FasterRCNN on one map of these channels; they share its parameters."""
    return Extractor(net.features, channels), Head(net, settings)


def join(extractor: Extractor, head: Head, adapters: Adapters | None = None) -> Detector:
    """The detector of these parts, which are shared."""
    return Detector(extractor, adapters, head)
