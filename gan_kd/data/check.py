"""The pre-flight check: every annotation and image of a recipe's data, and what is wrong with them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from gan_kd.data.dataset import DetectionDataset, Scan, accept, all_problems, class_names, nothing_in, scan
from gan_kd.data.record import Problem
from gan_kd.errors import printable
from gan_kd.recipe import Data

log = logging.getLogger("gan_kd")


@dataclass(frozen=True)
class Report:
    """What the check found; as text: the problems file by file, then what can be used of each split, and how."""

    scans: list[Scan]
    problems: list[Problem]

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems]
        if lines:
            lines.append("")
        classes = self.scans[0].dataset.classes
        counts = [found.counts() for found in self.scans]
        width = max(map(len, (*classes, "images", "class")))
        lines.append(f"{'class':<{width}}" + "".join(f"{found.key:>10}" for found in self.scans))
        lines += [f"{name:<{width}}" + "".join(f"{count[name]:>10,}" for count in counts) for name in classes]
        lines.append(f"{'images':<{width}}" + "".join(f"{len(found.dataset):>10,}" for found in self.scans))
        for found in self.scans:
            if found.without_object:
                lines.append(f"{found.without_object:,} images hold no object of the classes: not trained on")
        lines += remarks(self.scans)
        total = sum(found.images for found in self.scans)
        number = f"{len(self.problems):,}" if self.problems else "no"
        lines.append(f"{number} problem{'s' * (len(self.problems) != 1)} in {total:,} images")
        return "\n".join(lines)


def remarks(scans: list[Scan]) -> list[str]:
    """What is no fault but changes what is trained on or measured, a line a kind."""
    lines = [f"{found.key}: {line}" for found in scans for line in str(found.notes).splitlines()]
    for found in scans:
        copies = [files for files in found.files.values() if len(set(files)) > 1]
        if copies:
            extra = sum(len(set(files)) - 1 for files in copies)
            pair = _pair(*sorted(set(copies[0]))[:2])
            lines.append(
                f"{found.key}: {extra:,} images are copies of others, which count as often as they are there ({pair})"
            )
    train, val = (found.files for found in scans)
    common = [digest for digest in val if digest in train]
    if common:
        pair = _pair(train[common[0]][0], val[common[0]][0])
        lines.append(
            f"{len(common):,} images of val are in train, too, so that the mAP does not tell of new images ({pair})"
        )
    return lines


def _pair(one: Path, other: Path) -> str:
    return printable(f"{one} and {other}" if one != other else str(one))


def check(data: Data) -> Report:
    """Read every annotation and decode every image of both splits.

    Raises UsageError only where there is nothing to read: no root, no list of a split's images.
    """
    scans = _scans(data)
    missing = [nothing_in(data, found) for found in scans]
    return Report(scans, all_problems(scans) + [problem for problem in missing if problem])


def preflight(data: Data) -> tuple[DetectionDataset, DetectionDataset]:
    """The checked (train, val) data sets; what was changed without being a fault goes to the log.

    Raises UsageError with the first problems; where data.on_error is skip, what is broken is left out and the
    log says so.
    """
    scans = _scans(data)
    train, val = accept(data, scans)
    for line in remarks(scans):
        log.info("data: %s", line)
    return train, val


def _scans(data: Data) -> list[Scan]:
    classes = class_names(data)
    return [scan(data, which, classes) for which in ("train", "val")]
