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
from mxnet.gluon import HybridBlock

from gan_kd.data.sizes import Sizes
from gan_kd.detectors import base
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.faster_rcnn import settings
from gan_kd.detectors.faster_rcnn.sampler import RoISampler, RoITargets
from gan_kd.detectors.faster_rcnn.settings import STRIDE
from gan_kd.gluon import weights
from gan_kd.recipe.faster_rcnn import FasterRCNN as Config

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


class Extractor(base.Extractor):
    """Image (N,3,H,W) float32 -> [map (N,channels,ceil(H/16),ceil(W/16))].

    features: the layers of a backbone up to stride 16; their parameters are shared, not copied.
    """

    def __init__(self, features: HybridBlock, channels: int) -> None:
        super().__init__([base.Level("backbone", channels, STRIDE)])
        self.features = features

    def hybrid_forward(self, F, x):  # type: ignore[no-untyped-def]
        return [self.features(x)]


class Head(base.Head):
    """Map (B,C,h,w), extents (B,2), truth (B,M,5), draws (B,K) -> Outputs, for training.

    extents: height and width of each image in px, without padding. truth: corners in px and class, rows of -1 are none.
    draws: uniform in [0,1), K at least proposals + M; they choose the RoIs (`RoISampler`). The blocks are those of a
    GluonCV FasterRCNN, with its parameters and their names in a file.
    """

    def __init__(self, net: FasterRCNN, config: Config, backbone: str) -> None:
        """backbone: whose last layers `top_features` are, by name."""
        super().__init__()
        self.classes, self.config, self.backbone = tuple(net.classes), config, backbone
        self.rpn, self.top_features = net.rpn, net.top_features
        self.class_predictor, self.box_predictor = net.class_predictor, net.box_predictor
        self.class_decoder, self.box_decoder = net.cls_decoder, net.box_decoder
        with self.name_scope():
            self.sampler = RoISampler(config.samples, settings.POSITIVE_IOU, settings.POSITIVE_SHARE)
            self.targets = RoITargets(len(self.classes), settings.positives(config))

    def hybrid_forward(self, F, x, extents, truth, draws):  # type: ignore[no-untyped-def]
        samples_each, positives = self.config.samples, settings.positives(self.config)
        rpn_scores, rpn_boxes, proposals = self.propose(
            F, x, extents, settings.TRAIN_PRE_NMS, self.config.train_proposals
        )
        boxes = F.slice_axis(truth, axis=-1, begin=0, end=4)
        labels = F.slice_axis(truth, axis=-1, begin=4, end=5)
        with autograd.pause():
            rois, samples, matches = self.sampler(proposals, boxes, draws)
            class_targets, box_targets, box_masks, chosen = self.targets(rois, samples, matches, labels, boxes)
            image = F.contrib.arange_like(chosen, axis=0) * samples_each
            chosen = F.reshape(F.broadcast_add(chosen, F.expand_dims(image, 1)), (-1,))
        seen = self.look(F, x, rois)
        class_scores = F.reshape(self.class_predictor(seen), (-1, samples_each, len(self.classes) + 1))
        box_offsets = self.box_predictor(F.take(F.flatten(seen), chosen))
        box_offsets = F.reshape(box_offsets, (-1, positives, len(self.classes), 4))
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
            least = self.config.min_size
            small = (right - left + 1.0 < least) + (bottom - top + 1.0 < least)
            rated = F.sigmoid(F.stop_gradient(scores))
            rows = F.concat(F.where(small, -F.ones_like(rated), rated), corners, dim=-1)
            rows = F.contrib.box_nms(
                rows,
                overlap_thresh=settings.RPN_NMS,
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
        side = (self.config.roi_size,) * 2
        if self.config.roi == "pool":
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

    def __init__(self, head: Head, nms: float = 0.3, nms_topk: int = 400, post_nms: int = 100) -> None:
        """nms: IoU above which the weaker of two boxes of a class falls; nms_topk: how many take part; post_nms: K."""
        super().__init__()
        self.head = head
        self.nms = {"overlap_thresh": nms, "topk": nms_topk, "valid_thresh": 0.0001}
        self.post_nms = min(post_nms, head.config.test_proposals * len(head.classes))

    def hybrid_forward(self, F, x, extents):  # type: ignore[no-untyped-def]
        head, count, classes = self.head, self.head.config.test_proposals, len(self.head.classes)
        _, _, proposals = head.propose(F, x, extents, settings.TEST_PRE_NMS, count)
        rois = F.slice_axis(proposals, axis=-1, begin=1, end=None)
        there = F.slice_axis(proposals, axis=-1, begin=0, end=1) >= 0
        seen = head.look(F, x, rois)
        scores = F.softmax(head.class_predictor(seen), axis=-1)
        ids, scores = head.class_decoder(F.reshape(scores, (-1, count, classes + 1)))
        scores = F.broadcast_mul(scores, there)
        offsets = F.reshape(head.box_predictor(seen), (-1, count, classes, 4))
        offsets = F.transpose(offsets, (0, 2, 1, 3))
        regions = F.broadcast_axis(F.expand_dims(rois, 1), axis=1, size=classes)
        boxes = head.box_decoder(F.reshape(offsets, (1, -1, 4)), F.reshape(regions, (1, -1, 4)))
        boxes = F.reshape_like(boxes, offsets)
        ids, scores = [F.expand_dims(F.transpose(part, (0, 2, 1)), 3) for part in (ids, scores)]
        rows = F.concat(ids, scores, boxes, dim=-1)
        rows = F.contrib.box_nms(rows, id_index=0, score_index=1, coord_start=2, **self.nms)
        rows = F.reshape(rows, (0, -3, 0))
        best = F.topk(F.squeeze(F.slice_axis(rows, axis=2, begin=1, end=2), axis=2), k=self.post_nms, axis=1)
        image = F.broadcast_like(F.expand_dims(F.contrib.arange_like(best, axis=0), 1), best)
        rows = F.gather_nd(rows, F.stack(image, best))
        ids, scores = [F.slice_axis(rows, axis=2, begin=i, end=i + 1) for i in (0, 1)]
        boxes = clip(F, F.slice_axis(rows, axis=2, begin=2, end=None), extents)
        there = F.broadcast_axis(scores >= 0, axis=2, size=4)
        return ids, scores, F.where(there, boxes, -F.ones_like(boxes))


class Detector(base.Detector):
    """Image (N,3,H,W) float32, extents (N,2) -> ids (N,K,1), scores (N,K,1), boxes (N,K,4), as Decoder.

    extents: height and width of each image without padding, px; left out, all images fill the batch.
    """

    takes_extents = True

    def hybrid_forward(self, F, x, extents=None):  # type: ignore[no-untyped-def]
        if extents is None:
            size = F.slice_axis(F.shape_array(x), axis=0, begin=2, end=4)
            extents = F.cast(F.expand_dims(size, 0), "float32")
        return self.decoder(*self.head_maps(x), extents)

    def load(self, path: str | Path, what: str = "this detector") -> None:
        """As of base.Detector. Constants that GluonCV's training adds to its files are left out."""
        arrays = weights.read(path, what)
        own = {name: array for name, array in arrays.items() if not name.startswith(_TARGETS)}
        weights.assign(self.weights(), own, path, what)


def clip(F: Any, boxes: Any, extents: Any) -> Any:
    """Boxes (B,N,4), corners in px, with every corner inside the image of extents (B,2), height and width."""
    window = F.expand_dims(F.tile(F.reverse(extents, axis=1), reps=(1, 2)), 1)
    return F.broadcast_minimum(F.maximum(boxes, 0.0), window)


def split(net: FasterRCNN, config: Config, channels: int, backbone: str) -> tuple[Extractor, Head]:
    """Extractor and head of a GluonCV FasterRCNN on one map of these channels; they share its parameters."""
    return Extractor(net.features, channels), Head(net, config, backbone)


def join(
    extractor: Extractor,
    head: Head,
    sizes: Sizes,
    adapters: Adapters | None = None,
    nms: float = 0.3,
    nms_topk: int = 400,
    post_nms: int = 100,
) -> Detector:
    """The detector of these parts, which are shared; sizes: of its input; nms* as in Decoder."""
    return Detector(base.Parts(extractor, head, sizes), adapters, Decoder(head, nms, nms_topk, post_nms))
