"""The numbers of a Faster R-CNN, as GluonCV sets them for VOC at a short side of 600 px."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STRIDE = 16  # px of the image that a cell of the map stands for
ALLOCATED = 128  # cells a side for which anchors are stored


@dataclass(frozen=True)
class Settings:
    """What is chosen for a network beside its backbone and classes.

    scales, ratios: an anchor is 16 px times a scale wide and high, its height / width is a ratio. rpn_channels: of the
    RPN's convolution. rpn_nms: IoU above which the weaker of two proposals falls. Proposals before and after it: of
    training, of detection. rpn_min_size: side in px below which a proposal is dropped.

    samples: RoIs of an image in training; positive_iou: the least of a positive one; positive_share: of the samples.
    roi: 'align' or 'pool'; roi_size: cells a side of what the RoI layer gives.
    nms: IoU above which the weaker of two detections of a class falls; nms_topk: of a class that take part; detections:
    of an image, at most.
    """

    scales: tuple[float, ...] = (2, 4, 8, 16, 32)
    ratios: tuple[float, ...] = (0.5, 1, 2)
    rpn_channels: int = 1024
    rpn_nms: float = 0.7
    rpn_min_size: int = 16
    train_pre_nms: int = 12000
    train_post_nms: int = 2000
    test_pre_nms: int = 6000
    test_post_nms: int = 300
    samples: int = 128
    positive_iou: float = 0.5
    positive_share: float = 0.25
    roi: str = "align"
    roi_size: int = 14
    nms: float = 0.3
    nms_topk: int = 400
    detections: int = 100

    @property
    def anchors_per_cell(self) -> int:
        return len(self.scales) * len(self.ratios)

    @property
    def positives(self) -> int:
        """RoIs of an image whose boxes are predicted in training, at most."""
        return int(self.samples * self.positive_share)

    def of_gluoncv(self) -> dict[str, Any]:
        """Keyword arguments of GluonCV's FasterRCNN."""
        return {
            "scales": self.scales,
            "ratios": self.ratios,
            "base_size": STRIDE,
            "strides": STRIDE,
            "alloc_size": (ALLOCATED, ALLOCATED),
            "rpn_channel": self.rpn_channels,
            "rpn_nms_thresh": self.rpn_nms,
            "rpn_min_size": self.rpn_min_size,
            "rpn_train_pre_nms": self.train_pre_nms,
            "rpn_train_post_nms": self.train_post_nms,
            "rpn_test_pre_nms": self.test_pre_nms,
            "rpn_test_post_nms": self.test_post_nms,
            "num_sample": self.samples,
            "pos_iou_thresh": self.positive_iou,
            "pos_ratio": self.positive_share,
            "roi_mode": self.roi,
            "roi_size": (self.roi_size, self.roi_size),
            "nms_thresh": self.nms,
            "nms_topk": self.nms_topk,
            "post_nms": self.detections,
        }
