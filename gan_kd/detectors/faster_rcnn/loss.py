"""The four losses of Faster R-CNN as shares of the whole batch, so that the sum over devices is one device's loss."""

from __future__ import annotations

from typing import Any

from mxnet.gluon import HybridBlock

from gan_kd.detectors.faster_rcnn.network import Outputs

NAMES = ("rpn_conf", "rpn_loc", "conf", "loc")


class FasterRCNNLoss(HybridBlock):
    """Classification and boxes of the RPN, classification and boxes of the second stage: four scalars (1,).

    GluonCV's, but over the counts of the whole batch: its network divides a device's losses by the device's counts and
    multiplies them by its images. Boxes are divided by all that is sampled, not by the positives, as there.
    """

    def hybrid_forward(self, F: Any, *inputs: Any) -> tuple[Any, ...]:
        """inputs: the head's Outputs; RPN labels (B,N), 1, 0 or -1 to ignore; RPN offsets (B,N,4); two scales (1,).

        The scales are 1 / sampled anchors and 1 / sampled RoIs of the whole batch.
        """
        *predictions, labels, offsets, per_anchor, per_roi = inputs
        outputs = Outputs(*predictions)
        # Sigmoid cross-entropy of logits, in the form that cannot overflow.
        scores = outputs.rpn_scores
        entropy = F.relu(scores) - scores * labels + F.Activation(-F.abs(scores), act_type="softrelu")
        rpn_conf = F.sum(F.where(labels >= 0, entropy, F.zeros_like(entropy)))
        # Huber with a corner at 1/9 is smooth L1 with sigma 3.
        distance = F.sum(F.smooth_l1(outputs.rpn_boxes - offsets, scalar=3.0), axis=-1)
        rpn_loc = F.sum(F.where(labels > 0, distance, F.zeros_like(distance)))
        targets = outputs.class_targets
        entropy = -F.pick(F.log_softmax(outputs.class_scores, axis=-1), F.relu(targets), axis=-1)
        conf = F.sum(F.where(targets >= 0, entropy, F.zeros_like(entropy)))
        distance = F.smooth_l1(outputs.box_offsets - outputs.box_targets, scalar=1.0)
        loc = F.sum(distance * outputs.box_masks)
        return rpn_conf * per_anchor, rpn_loc * per_anchor, conf * per_roi, loc * per_roi


def sampled(targets: Any) -> Any:
    """How many labels or class targets, of any shape, take part: an array (1,), without a wait for the device."""
    return (targets >= 0).sum()
