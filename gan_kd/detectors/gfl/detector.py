"""GFL as one network: image -> detections, for inputs of one size or of many."""

from __future__ import annotations

import sys
from typing import Any

from mxnet.ndarray import NDArray

from gan_kd.data.sizes import Size
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.base import Decoder, Detector, Parts
from gan_kd.detectors.gfl.decode import MOST, GFLDecoder
from gan_kd.detectors.suppression import Suppression
from gan_kd.recipe import Eval


class GFLDetector(Detector):
    """For inputs of any size, (N,3,H,W): priors follow from the size, so that each has a decoder of its own.

    Exported it is for inputs of the typical size.
    """

    def __init__(self, parts: Parts, adapters: Adapters | None, measured: Eval) -> None:
        typical = parts.sizes.typical
        super().__init__(parts, adapters, _decoder(parts, typical, measured))
        self._parts, self._measured = parts, measured
        self._decoders = {typical: self.decoder}

    def hybridize(self, active: bool = True, **settings: Any) -> None:
        """Compiles all but the decoders, which change with the size."""
        self.extractor.hybridize(active, **settings)

    def forward(self, x: Any, *others: Any) -> Any:
        if not isinstance(x, NDArray):
            return super().forward(x, *others)
        size = x.shape[2:]
        if size not in self._decoders:
            self._decoders[size] = _decoder(self._parts, size, self._measured)
        return self._decoders[size](*self.head(*self.head_maps(x)))


def fixed(parts: Parts, adapters: Adapters | None, measured: Eval) -> Detector:
    """For square inputs."""
    return Detector(parts, adapters, _decoder(parts, parts.sizes.typical, measured))


def _decoder(parts: Parts, size: Size, measured: Eval) -> Decoder:
    # The best nms_topk candidates of all levels are of at most so many priors, which are among the best of their level:
    # then the cut of each level changes nothing but the order of rows, in which two runtimes do not agree.
    most = MOST if measured.nms_topk > MOST else sys.maxsize
    candidates = GFLDecoder(size[1], size[0], parts.head.settings.reg_max, most)
    candidates.initialize(ctx=parts.head.contexts)
    classes = len(parts.head.classes)
    suppression = Suppression(candidates.kept, classes, measured.nms, measured.nms_topk, measured.post_nms)
    return Decoder(candidates, suppression)
