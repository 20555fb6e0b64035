"""The images that an export needs: to compare runtimes, to calibrate int8, to time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gan_kd.data import demo
from gan_kd.data.dataset import DetectionDataset
from gan_kd.data.files import find_images, open_images
from gan_kd.data.loader import Loader
from gan_kd.data.pixels import ValTransform
from gan_kd.data.sizes import Sizes
from gan_kd.errors import UsageError

_BATCH = 32


def opened(paths: Sequence[Path]) -> DetectionDataset:
    """The images of files and folders. UsageError where one is missing or cannot be read."""
    dataset, problems = open_images(find_images(paths))
    if problems:
        raise UsageError(f"{problems[0]} ({len(problems)} such)")
    return dataset


def pixels(dataset: DetectionDataset, most: int, sizes: Sizes) -> np.ndarray:
    """At most so many images, spread evenly over the data set, as the network takes them: (N,3,H,W) float32.

    Where inputs differ in size, those that have the size of the first.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, most).round().astype(int))
    few = DetectionDataset(dataset.classes, [dataset.records[index] for index in chosen])
    with Loader(few, ValTransform(sizes), _BATCH, num_workers=0, seed=0, train=False) as loader:
        batches = [batch.images.copy() for batch in loader.epoch(0)]
    return np.concatenate([images for images in batches if images.shape[1:] == batches[0].shape[1:]])


def drawn(count: int, sizes: Sizes) -> np.ndarray:
    """Drawn images, where there are no others."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "drawn")
        demo.draw(root, train=1, test=count, seed=0)
        return pixels(opened([root / "JPEGImages"]), count, sizes)
