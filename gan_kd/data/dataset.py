"""Detection data sets: VOC, COCO, any folder in VOC's layout, and drawn images.

Without MXNet, so that the loader's worker processes start without it. Every way to a data set looks through
each of its annotations and images first: otherwise a fault would only show in the numbers.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, TypeVar, Union

import numpy as np
from tqdm import tqdm

from gan_kd.data import coco, demo, images, voc
from gan_kd.data.record import LONGEST_NAME, Labels, Notes, Problem, Record, is_name, plain
from gan_kd.data.values import decoded
from gan_kd.errors import UsageError
from gan_kd.recipe import Data
from gan_kd.system.console import no_bar
from gan_kd.system.paths import expanded
from gan_kd.system.untrusted import SMALL, read_bytes

log = logging.getLogger("gan_kd")
_MOST_CLASSES = 2000  # OpenImages has 601, LVIS 1,203; more cost gigabytes of class predictors
_SHOWN = 3  # problems in a message; `python -m gan_kd check` lists all
Split = Union[voc.VOCSplit, coco.COCOSplit]
T = TypeVar("T")


class DetectionDataset:
    """Images with boxes; picklable.

    classes: names of the labels. records: one an image.
    """

    def __init__(self, classes: Sequence[str], records: Sequence[Record]) -> None:
        self.classes = tuple(classes)
        self.records = list(records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The image, uint8 RGB (H, W, 3), and its label, float32 (M, 6): box, class, difficult.

        Raises RunError where the image cannot be decoded any more.
        """
        return self.image(index), self.label(index)

    def image(self, index: int, reduction: int = 1) -> np.ndarray:
        """The image alone, at a fraction of its sides as of `images.read`."""
        return images.read(self.records[index].image, reduction)

    def label(self, index: int) -> np.ndarray:
        """The label alone."""
        record = self.records[index]
        return np.column_stack((record.boxes, record.labels, record.difficult)).astype(np.float32)


@dataclass(frozen=True)
class Scan:
    """A split as it was found: what can be used of it, and every problem.

    key: train or val. images: number of images that the split names. without_object: images left out of
    training as they hold no object of the classes: SSD's loss takes its negatives in proportion to each
    image's positives, so it would learn nothing from them (GluonCV skips COCO's, too). Measuring keeps them.
    notes: what was changed or left out without being a fault. files: the image files that are used, by a digest of
    their bytes.
    """

    key: str
    dataset: DetectionDataset
    problems: list[Problem]
    images: int
    without_object: int
    notes: Notes
    files: dict[bytes, list[Path]]

    def counts(self) -> Counter:
        """Objects by class name, difficult ones included."""
        names = self.dataset.classes
        return Counter(names[label] for record in self.dataset.records for label in record.labels)


def class_names(data: Data) -> tuple[str, ...]:
    """The classes that `data.classes` stands for, as they are written there; compared without case.

    annotations: the names of the train annotations, sorted; a demo set has all that are drawn.
    Raises UsageError for a file that cannot be read, no class, or one named twice.
    """
    if isinstance(data.classes, list):
        return distinct(data.classes, "data.classes")
    if data.classes in ("voc", "coco"):
        return voc.CLASSES if data.classes == "voc" else coco.CLASSES
    if data.classes != "annotations":
        return _classes_of_file(expanded(data.classes))
    if data.dataset == "demo":
        return demo.CLASSES
    found = [_each(split.names, split.items, "class names") for split in _open(data, "train")]
    by_name = {plain(name): name for name in sorted(set().union(*itertools.chain(*found)))}
    if not by_name:
        problems = scan(data, "train", ()).problems
        faults = f" ({_first_of(problems)})" if problems else ""
        raise UsageError(f"{data.root}: no object in data.train names a class{faults}; list them in data.classes")
    return distinct([by_name[name] for name in sorted(by_name)], f"data.train of {data.root}")


def open_split(data: Data, which: str) -> DetectionDataset:
    """The `train` or `val` split of a recipe's data, all its files looked through.

    Raises UsageError where something is wrong, or leaves it out where data.on_error is skip.
    """
    return accept(data, [scan(data, which, class_names(data))])[0]


def scan(data: Data, which: str, classes: Sequence[str]) -> Scan:
    """Look through all annotations and images of the `train` or `val` split.

    Raises UsageError where the root, or the file that lists the split, is not there.
    """
    labels = Labels(classes, report=data.unknown_classes == "report")
    splits = _open(data, which)
    with images.strict():
        read = [_each(partial(split.read, labels=labels), split.items, which) for split in splits]
    readings = list(itertools.chain(*read))
    records = [reading.record for reading in readings if reading.record]
    problems = [problem for split in splits for problem in split.problems]
    problems += [problem for reading in readings for problem in reading.problems]
    used = [record for record in records if len(record.labels)] if which == "train" else records
    notes, files = Notes(), defaultdict(list)
    for split in splits:
        notes.add(split.notes, str(split.file))
    for reading in readings:
        if reading.record:
            notes.add(reading.notes, str(reading.record.image))
            files[reading.digest].append(reading.record.image)
    dataset = DetectionDataset(classes, used)
    return Scan(which, dataset, problems, len(readings), len(records) - len(used), notes, dict(files))


def accept(data: Data, scans: Sequence[Scan]) -> list[DetectionDataset]:
    """The data sets of these scans, if they may be used.

    Raises UsageError for any problem, where data.on_error is skip only if no object is left that counts.
    """
    problems = all_problems(scans)
    if problems and data.on_error == "stop":
        advice = "--data.on-error skip leaves out what is broken, python -m gan_kd check lists it all"
        raise UsageError(f"{_first_of(problems)} ({advice})")
    if problems:
        lost = sum(found.images - found.without_object - len(found.dataset) for found in scans)
        what = f"{lost} images, and single objects of others" if lost else "single objects"
        log.warning("left out: %s (%s)", what, _first_of(problems))
    for found in scans:
        if nothing := nothing_in(data, found):
            raise UsageError(str(nothing))
    return [found.dataset for found in scans]


def _first_of(problems: Sequence[Problem]) -> str:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "; ".join(map(str, problems[:_SHOWN])) + more


def all_problems(scans: Sequence[Scan]) -> list[Problem]:
    """The problems of several splits; those of a file that is in two of them once."""
    return list(dict.fromkeys(problem for found in scans for problem in found.problems))


def nothing_in(data: Data, found: Scan) -> Problem | None:
    """The problem that no object is left to train on, or to measure with: an mAP leaves out difficult ones and crowds.

    Without one that counts the mAP is nan, and no epoch is the best.
    """
    records, measured = found.dataset.records, found.key == "val"
    if any(not (measured and difficult) for record in records for difficult in record.difficult):
        return None
    split = f"data.{found.key} ({', '.join(getattr(data, found.key))})"
    if measured and data.holdout is not None:
        split = f"data.holdout {data.holdout} (of {', '.join(data.train)})"
    kind, advice = "usable object", "check data.classes"
    if any(len(record.labels) for record in records):
        kind, advice = "object that an mAP counts", "all are marked difficult or crowd, so measure on others"
    what = f"{split} holds no {kind} of the classes {', '.join(found.dataset.classes)}; {advice}"
    return Problem(Path(data.root), what)


def _open(data: Data, which: str) -> list[Split]:
    """The splits of train or val; with data.holdout both are parts of train."""
    if data.holdout is None:
        return _splits(data, which)
    splits = _splits(data, "train")
    for split in splits:
        held = split.items[:: data.holdout]
        split.items = held if which == "val" else [x for i, x in enumerate(split.items) if i % data.holdout]
    return splits


def _splits(data: Data, which: str) -> list[Split]:
    root = expanded(data.root)
    if data.dataset == "demo":
        demo.draw(root, data.demo.train, data.demo.test, data.demo.seed)
    elif not root.is_dir():
        fetch = f"fetch it with python -m gan_kd download {data.dataset} --root {root}, or "
        raise UsageError(
            f"{root}: there is no data set (data.root); {fetch if data.dataset != 'folder' else ''}"
            "name its folder with --dataset-root"
        )
    names: list[str] = getattr(data, which)
    if data.dataset == "coco":
        return [coco.COCOSplit(root, name) for name in names]
    if data.dataset == "voc":
        pairs = [name.split("/") for name in names]
        return [voc.VOCSplit(root / f"VOC{year}", split) for year, split in pairs]
    return [voc.VOCSplit(root, name) for name in names]


def _each(function: Callable[[Any], T], items: Sequence[Any], what: str) -> list[T]:
    """function(item) of each item in order, in threads: decoding waits for the disk and frees the GIL."""
    pool = ThreadPoolExecutor()
    try:
        progress = tqdm(pool.map(function, items), f"checking {what}", len(items), leave=False, disable=no_bar())
        return list(progress)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C


def _classes_of_file(path: Path) -> tuple[str, ...]:
    try:
        lines = decoded(read_bytes(path, SMALL)).splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a readable list of class names for data.classes ({error})") from None
    return distinct([line.strip() for line in lines if line.strip()], str(path))


def distinct(names: Iterable[str], where: str) -> tuple[str, ...]:
    """The names of a class list without outer spaces; UsageError for one that a network cannot have."""
    names = tuple(name.strip() for name in names)
    if len(names) > _MOST_CLASSES:
        raise UsageError(f"{where}: names {len(names)} classes; a network takes {_MOST_CLASSES} at most")
    odd = [name for name in names if name and not is_name(name)]
    if odd:
        raise UsageError(f"{where}: '{odd[0][:LONGEST_NAME]}' cannot be the name of a class")
    twice = [name for name, count in Counter(map(plain, names)).items() if count > 1]
    if twice or not names:
        raise UsageError(f"{where}: " + (f"names class '{twice[0]}' twice" if twice else "names no class"))
    return names
