"""Where a detector's largest maps are active, small enough for eval.json, so that a report can draw it later."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
import numpy as np

from gan_kd.data.dataset import DetectionDataset
from gan_kd.data.pixels import ValTransform
from gan_kd.data.sizes import Square
from gan_kd.detectors.ssd.network import Detector
from gan_kd.distill.cosine_attention import attention

MAPS = 2  # the largest; the smaller ones have few cells


def attention_maps(
    detector: Detector, dataset: DetectionDataset, indices: Sequence[int], size: int, context: mx.Context
) -> list[list[list[str]]]:
    """Attention over some images, at the maps that the detector's head takes: for each image a list of its maps.

    A map is its rows from the top, a row its cells as two hexadecimal digits each: 255 times the cell's share of the
    largest one. size: side of the network input, px. context: where the parameters are.
    """
    images = [ValTransform(Square(size))(dataset.image(index))[0] for index in indices]
    if not images:
        return []
    maps = detector.extractor(mx.nd.array(np.stack(images), ctx=context))
    if detector.adapters is not None:
        maps = detector.adapters(*maps)
    found = []
    for m in maps[:MAPS]:
        energy = attention(m).asnumpy().reshape(len(images), *m.shape[2:])
        largest = energy.max(axis=(1, 2), keepdims=True)
        found.append((255 * energy / np.maximum(largest, 1e-12)).round().astype(np.uint8))
    return [[[row.tobytes().hex() for row in of_image] for of_image in of_map] for of_map in zip(*found)]
