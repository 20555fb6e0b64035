"""An SSD taken apart and put together: GluonCV's network <-> extractor, adapters, head and decoder."""

from __future__ import annotations

from gluoncv.model_zoo.ssd import SSD

from gan_kd.data.sizes import Square
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.base import Detector, Parts
from gan_kd.detectors.ssd.extractor import SSDExtractor
from gan_kd.detectors.ssd.head import SSDDecoder, SSDHead


def split(net: SSD) -> tuple[SSDExtractor, SSDHead]:
    """Extractor and head of a GluonCV SSD; they share its parameters, nothing is copied."""
    size, _ = net.anchor_generators[0]._im_size  # nothing else in GluonCV's SSD knows its input size
    return SSDExtractor(net.features, size), head_of(net)


def head_of(net: SSD) -> SSDHead:
    """The head of a GluonCV SSD alone."""
    anchors = [generator.anchors for generator in net.anchor_generators]
    return SSDHead(net.class_predictors, net.box_predictors, anchors, net.bbox_decoder, net.classes)


def join(
    extractor: SSDExtractor,
    head: SSDHead,
    adapters: Adapters | None = None,
    nms: float = 0.45,
    nms_topk: int = 400,
    post_nms: int = 100,
) -> Detector:
    """The detector of these parts, which are shared, on the contexts of the head; nms* as in SSDDecoder."""
    decoder = SSDDecoder(head, extractor.sizes, nms, nms_topk, post_nms)
    return Detector(Parts(extractor, head, Square(extractor.size)), adapters, decoder)
