"""Where a detector's largest maps are active, small enough for eval.json, so that a report can draw it later."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import mxnet as mx
import numpy as np

from gan_kd.data.dataset import DetectionDataset
from gan_kd.data.pixels import ValTransform
from gan_kd.detectors.base import Detector
from gan_kd.distill.cosine_attention import attention

MAPS = 2  # the largest; the smaller ones have few cells


def attention_maps(
    detector: Detector, dataset: DetectionDataset, indices: Sequence[int], context: mx.Context
) -> list[list[list[str]]]:
    """Attention over some images, at the maps that the detector's head takes: for each image a list of its maps.

    A map is its rows from the top, a row its cells as two hexadecimal digits each: 255 times the cell's share of the
    largest one. context: where the parameters are.
    """
    transform = ValTransform(detector.sizes)
    found: list[list[list[str]]] = []
    for images in _stacks([transform(dataset.image(index))[0] for index in indices]):
        drawn = []
        for m in detector.head_maps(mx.nd.array(images, ctx=context))[:MAPS]:
            energy = attention(m).asnumpy().reshape(len(images), *m.shape[2:])
            largest = energy.max(axis=(1, 2), keepdims=True)
            drawn.append((255 * energy / np.maximum(largest, 1e-12)).round().astype(np.uint8))
        found += [[[row.tobytes().hex() for row in of_image] for of_image in of_map] for of_map in zip(*drawn)]
    return found


def _stacks(images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Batches of the images that follow each other in one size."""
    for _, alike in itertools.groupby(images, lambda image: image.shape):
        yield np.stack(list(alike))
