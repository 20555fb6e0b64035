"""The numbers of a Faster R-CNN that no recipe changes, as GluonCV sets them for VOC and COCO."""

from __future__ import annotations

from typing import Any

from gan_kd.recipe.faster_rcnn import FasterRCNN

STRIDE = 16  # px of the image that a cell of the map stands for
RATIOS = (0.5, 1, 2)  # height / width of anchors
ALLOCATED = 128  # cells a side for which anchors are stored
RPN_NMS = 0.7  # IoU above which the weaker of two proposals falls
TRAIN_PRE_NMS, TEST_PRE_NMS = 12000, 6000  # anchors that become proposals
POSITIVE_IOU = 0.5  # of a region with its object, at least
POSITIVE_SHARE = 0.25  # of the regions of an image that are trained on, at most


def anchors_per_cell(config: FasterRCNN) -> int:
    """Of the RPN."""
    return len(config.scales) * len(RATIOS)


def positives(config: FasterRCNN) -> int:
    """Regions of an image whose boxes are predicted in training."""
    return int(config.samples * POSITIVE_SHARE)


def of_gluoncv(config: FasterRCNN) -> dict[str, Any]:
    """Keyword arguments of GluonCV's FasterRCNN."""
    return {
        "scales": tuple(config.scales),
        "ratios": RATIOS,
        "base_size": STRIDE,
        "strides": STRIDE,
        "alloc_size": (ALLOCATED, ALLOCATED),
        "rpn_channel": config.rpn_channels,
        "rpn_nms_thresh": RPN_NMS,
        "rpn_min_size": config.min_size,
        "rpn_train_pre_nms": TRAIN_PRE_NMS,
        "rpn_train_post_nms": config.train_proposals,
        "rpn_test_pre_nms": TEST_PRE_NMS,
        "rpn_test_post_nms": config.test_proposals,
        "num_sample": config.samples,
        "pos_iou_thresh": POSITIVE_IOU,
        "pos_ratio": POSITIVE_SHARE,
        "roi_mode": config.roi,
        "roi_size": (config.roi_size, config.roi_size),
    }
