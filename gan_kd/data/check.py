"""The pre-flight check: every annotation and image of a recipe's data, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass

from gan_kd.data.dataset import DetectionDataset, Scan, accept, all_problems, class_names, nothing_in, scan
from gan_kd.data.record import Problem
from gan_kd.recipe import Data


@dataclass(frozen=True)
class Report:
    """What the check found; as text: the problems file by file, then what can be used of each split."""

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
        total = sum(found.images for found in self.scans)
        number = f"{len(self.problems):,}" if self.problems else "no"
        lines.append(f"{number} problem{'s' * (len(self.problems) != 1)} in {total:,} images")
        return "\n".join(lines)


def check(data: Data) -> Report:
    """Read every annotation and decode every image of both splits.

    Raises UsageError only where there is nothing to read: no root, no list of a split's images.
    """
    scans = _scans(data)
    missing = [nothing_in(data, found) for found in scans]
    return Report(scans, all_problems(scans) + [problem for problem in missing if problem])


def preflight(data: Data) -> tuple[DetectionDataset, DetectionDataset]:
    """The checked (train, val) data sets.

    Raises UsageError with the first problems; where data.on_error is skip, what is broken is left out and the
    log says so.
    """
    train, val = accept(data, _scans(data))
    return train, val


def _scans(data: Data) -> list[Scan]:
    classes = class_names(data)
    return [scan(data, which, classes) for which in ("train", "val")]
