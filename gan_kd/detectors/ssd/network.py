"""An SSD taken apart and put together: GluonCV's network <-> extractor, adapters, head and decoder."""

from __future__ import annotations

from pathlib import Path

from gluoncv.model_zoo.ssd import SSD
from mxnet.gluon import HybridBlock, Parameter

from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.ssd.extractor import Extractor
from gan_kd.detectors.ssd.head import SSDDecoder, SSDHead
from gan_kd.gluon import weights


class Detector(HybridBlock):
    """Image (N,3,S,S) float32 -> ids (N,K,1), scores (N,K,1), boxes (N,K,4), as SSDDecoder.

    What is deployed after distillation: student, adapters where channels differ, head (paper, algorithm,
    step 6). The parts are shared with whoever made them: training them trains the detector.
    """

    def __init__(self, extractor: Extractor, adapters: Adapters | None, head: SSDHead, decoder: SSDDecoder) -> None:
        super().__init__()
        self.extractor = extractor
        self.adapters = adapters
        self.head = head
        self.decoder = decoder

    def hybrid_forward(self, F, x):  # type: ignore[no-untyped-def]
        maps = self.extractor(x)
        if self.adapters is not None:
            maps = self.adapters(*maps)
        return self.decoder(*self.head(*maps))

    def weights(self) -> dict[str, Parameter]:
        """Parameters by their names in a file: GluonCV's, and `adapters.*`, which GluonCV does not know."""
        named = {**self.extractor._collect_params_with_prefix(), **self.head.weights()}
        if self.adapters is not None:
            named.update(self.adapters._collect_params_with_prefix("adapters"))
        return named

    def save(self, path: str | Path) -> None:
        """Writes a .params file, which GluonCV's SSD loads if there are no adapters; RunError on failure."""
        weights.write(self.weights(), path)

    def load(self, path: str | Path, what: str = "this detector") -> None:
        """Loads a file of `save` or of GluonCV's `save_parameters`.

        Raises UsageError where the file is broken, not finite, or of another network (`what` names this one).
        """
        weights.assign(self.weights(), weights.read(path, what), path, what)


def split(net: SSD) -> tuple[Extractor, SSDHead]:
    """Extractor and head of a GluonCV SSD; they share its parameters, nothing is copied."""
    size, _ = net.anchor_generators[0]._im_size  # nothing else in GluonCV's SSD knows its input size
    anchors = [generator.anchors for generator in net.anchor_generators]
    head = SSDHead(net.class_predictors, net.box_predictors, anchors, net.bbox_decoder, net.classes)
    return Extractor(net.features, size), head


def join(
    extractor: Extractor,
    head: SSDHead,
    adapters: Adapters | None = None,
    nms: float = 0.45,
    nms_topk: int = 400,
    post_nms: int = 100,
) -> Detector:
    """The detector of these parts, which are shared, on the contexts of the head; nms* as in SSDDecoder."""
    return Detector(extractor, adapters, head, SSDDecoder(head, extractor.sizes, nms, nms_topk, post_nms))
