"""Images that no data set lists: single files and folders of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gan_kd.data.dataset import DetectionDataset
from gan_kd.data.images import SUFFIXES, strict, verified_size
from gan_kd.data.record import Flaw, Problem, Record
from gan_kd.errors import UsageError


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and the images of the folders among them by name; without their own folders.

    UsageError for what is not there, and for a folder without images.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
            if not inside:
                raise UsageError(f"{path}: the folder holds no image ({', '.join(SUFFIXES)})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder")
    return found


def open_images(files: Sequence[Path], classes: Sequence[str] = ()) -> tuple[DetectionDataset, list[Problem]]:
    """The images that can be read, without objects, as a data set, and what is wrong with the others."""
    with strict(), ThreadPoolExecutor() as pool:
        found = list(pool.map(_open, files))
    records = [record for record in found if isinstance(record, Record)]
    return DetectionDataset(classes, records), [problem for problem in found if isinstance(problem, Problem)]


def without_objects(name: str, file: Path, width: int, height: int) -> Record:
    """The record of an image of which nothing is known."""
    return Record(name, file, width, height, np.empty((0, 4), np.float32), np.empty(0, np.int32), np.empty(0, bool))


def _open(file: Path) -> Record | Problem:
    try:
        width, height = verified_size(file)
    except Flaw as flaw:
        return Problem(file, str(flaw))
    return without_objects(file.name, file, width, height)
