"""What YOLOv3's published training draws beside SSD's augmentation: mixtures of two images, and the input size.

Both follow from (seed, epoch, index or batch) alone, so that neither the number of workers nor a resumed run changes
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Of the beta distribution of a mixture's ratio (Zhang et al., Bag of Freebies, arXiv 1902.04103, section 3.1).
_BETA = 1.5
#: Batches of one input size (GluonCV's script; YOLOv3 changes the size as often).
_BATCHES_A_SIZE = 10
#: Keeps the draws of sizes apart from those of orders and samples, which are seeded [seed, epoch, ...] too.
_SIZES = 1


def draw_mixture(rng: np.random.Generator, index: int, images: int) -> tuple[int, float]:
    """The partner of sample `index` of a set of at least two, and the share of `index` in the mixture, in (0,1)."""
    share = float(rng.beta(_BETA, _BETA))
    other = int(rng.integers(images - 1))
    return other + (other >= index), share


def mix(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """`share` x the first image + (1 - share) x the second, both at the upper left corner of what holds both.

    uint8 RGB (H, W, 3), fractions cut off; black where neither is. Boxes stay where they are.
    """
    height, width = np.maximum(first.shape[:2], second.shape[:2])
    mixed: np.ndarray = np.zeros((height, width, 3), np.float32)
    mixed[: first.shape[0], : first.shape[1]] = first.astype(np.float32) * np.float32(share)
    mixed[: second.shape[0], : second.shape[1]] += second.astype(np.float32) * np.float32(1 - share)
    return mixed.astype(np.uint8)


def input_size(sizes: Sequence[int], seed: int, epoch: int, batch: int) -> int:
    """Side in px of the batches of one size that `batch` (from 0) of an epoch is among."""
    rng = np.random.default_rng([seed, epoch, batch // _BATCHES_A_SIZE, _SIZES])
    return int(sizes[rng.integers(len(sizes))])
