"""The page of images: ground truth and every network's detections side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gan_kd.data import images
from gan_kd.data.record import Flaw
from gan_kd.errors import RunError
from gan_kd.report.fonts import readable, style_for
from gan_kd.report.page import COLOURS
from gan_kd.report.plots import SOFT, STYLE
from gan_kd.report.run import Run

TRUTH = "ground truth"
TITLES = (TRUTH, "teacher", "baseline", "distilled")
IMAGES = 8
# An SSD gives a hundred detections an image, most of them scored near zero; a poor one scores many higher.
SCORE, MOST = 0.3, 12
# Dark enough for white text. From the eleventh class on colours repeat, so each box also bears its class.
PALETTE = (
    "#c1272d", "#0072b2", "#00795c", "#7b3fa0", "#b35900",
    "#00708a", "#a3195b", "#4d6600", "#5c4033", "#3949ab",
)  # fmt: skip
WIDTH, GAP, TOP = 3.0, 0.06, 0.3  # inches: of a panel, between panels, for the column titles
DPI = 100
FLAT, TALL = 0.05, 4.0  # height by width: a flatter image gets a panel of this, of a taller one fewer pixels are drawn


class Box(NamedTuple):
    """One box to draw. `corners`: xmin, ymin, xmax, ymax in px of the image; `sure`: not dashed."""

    corners: np.ndarray
    label: int
    text: str
    sure: bool


def choose(run: Run) -> tuple[list[dict[str, Any]], int]:
    """Samples to show, at most `IMAGES`, and how many the run names whose image is not on this machine.

    A sample is as in eval.json, with `path`, and `detections` by network; a network may lack it.
    """
    samples: dict[str, dict[str, Any]] = {}
    for name in reversed(TITLES[1:]):
        for sample in run.networks[name].eval.get("samples") or ():
            entry = samples.setdefault(str(sample["id"]), {**sample, "detections": {}})
            entry["detections"][name] = sample["detections"]
    found = []
    for sample in samples.values():
        paths = (Path(os.path.expanduser(sample["image"])), run.folder / sample["image"])
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found.append({**sample, "path": path})
    return found[:IMAGES], len(samples) - len(found)


def detections(run: Run, samples: Sequence[dict[str, Any]], classes: Sequence[str], path: Path) -> bool:
    """Draw `samples` (from `choose`) of a run; False where none of them can be decoded."""
    remarks = {name: "this image was not kept" if run.networks[name].eval else "not run" for name in TITLES[1:]}
    return draw(TITLES, samples, classes, path, remarks)


def draw(
    titles: Sequence[str],
    samples: Sequence[dict[str, Any]],
    classes: Sequence[str],
    target: Path | BinaryIO,
    remarks: Mapping[str, str] | None = None,
) -> bool:
    """Write a JPEG, one row an image, one column a title: `TRUTH`, or a network.

    samples: as `choose` gives them; remarks: by network, for samples without its detections. False where no image
    can be decoded.
    """
    images = [(sample, image) for sample in samples for image in [read(sample["path"])] if image is not None]
    if not images:
        return False
    heights = [WIDTH * min(1.0, max(FLAT, image.shape[0] / image.shape[1])) for _, image in images]
    fonts, classes = style_for(classes), [readable(name) for name in classes]
    wide, high = len(titles) * (WIDTH + GAP) - GAP, TOP + sum(heights) + GAP * len(heights)
    with rc_context({**STYLE, **fonts}):
        figure = Figure(figsize=(wide, high))
        for column, title in enumerate(titles):
            left, bottom = column * (WIDTH + GAP), high - TOP
            style: dict[str, Any] = {"ha": "center", "va": "center", "weight": "bold", "size": 12}
            centre = (left + WIDTH / 2) / wide
            figure.text(centre, 1 - TOP / 2 / high, title, color=COLOURS.get(title, SOFT), **style)
            for (sample, image), height in zip(images, heights):
                bottom -= height
                axes = figure.add_axes((left / wide, bottom / high, WIDTH / wide, height / high))
                bottom -= GAP
                axes.imshow(image, extent=(0, sample["width"], sample["height"], 0), interpolation="nearest")
                axes.set_axis_off()
                _panel(axes, sample, title, classes, (remarks or {}).get(title, ""))
        options = {"quality": 80, "optimize": True}
        figure.savefig(target, format="jpeg", dpi=DPI, facecolor="white", pil_kwargs=options)
    return True


def truth_boxes(sample: dict[str, Any], classes: Sequence[str]) -> list[Box]:
    """Every object of a sample; the difficult ones are called so."""
    boxes = []
    for *corners, label, difficult in sample["gt"]:
        text = classes[int(label)] + (" (difficult)" if difficult else "")
        boxes.append(Box(np.array(corners), int(label), text, True))
    return boxes


def found_boxes(sample: dict[str, Any], network: str, classes: Sequence[str]) -> list[Box]:
    """The detections worth drawing, highest score last; sure if one of their class overlaps by half."""
    truth = truth_boxes(sample, classes)
    rows = [row for row in sample["detections"][network] if row[5] >= SCORE]
    boxes = []
    for *corners, label, score in sorted(rows, key=lambda row: row[5])[-MOST:]:
        corner = np.array(corners, dtype=np.float64)
        hit = any(box.label == label and iou(corner, box.corners) >= 0.5 for box in truth)
        boxes.append(Box(corner, int(label), f"{classes[int(label)]} {100 * score:.0f}", hit))
    return boxes


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes (4,), all corners in px; 0 where both are empty."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.clip(sides, 0, None)))
    both = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - shared
    return shared / both if both > 0 else 0.0


def read(path: Path) -> np.ndarray | None:
    """RGB uint8 (H,W,3), no wider than it is drawn; None where it is no image, or one that the check refuses."""
    try:
        with images.strict():
            images.verified_size(path)
        image = images.read(path)
    except (Flaw, RunError):
        return None
    height, width = image.shape[:2]
    scale = min(1.0, WIDTH * DPI / width, TALL * WIDTH * DPI / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _panel(axes: Axes, sample: dict[str, Any], title: str, classes: Sequence[str], remark: str) -> None:
    """Boxes of one panel, or the reason why there are none: `remark` where the sample has no detections of it."""
    if title == TRUTH:
        boxes, remark = truth_boxes(sample, classes), ""
    elif title in sample["detections"]:
        boxes = found_boxes(sample, title, classes)
        remark = "" if boxes else f"no detection above {SCORE:g}"
    else:
        boxes = []
    for box in boxes:
        _draw(axes, box, sample["width"], sample["height"])
    if remark:
        frame = {"boxstyle": "round,pad=0.4", "fc": "#1c2024", "ec": "none", "alpha": 0.75}
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(0.5, 0.5, remark, size=9, color="white", bbox=frame, **place)


def _draw(axes: Axes, box: Box, width: int, height: int) -> None:
    """One box with its text, kept inside an image of `width` x `height` px."""
    colour = PALETTE[box.label % len(PALETTE)]
    x0, y0, x1, y1 = np.clip(box.corners, 0, [width, height, width, height])
    for edge, line, stroke in (("white", 3.0, "-"), (colour, 1.8, "-" if box.sure else (0, (2, 1.5)))):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=edge, lw=line, ls=stroke))
    right, above = x0 > 0.65 * width, y0 > 0.07 * height
    axes.annotate(
        box.text, (x1 if right else x0, y0), xytext=(0, 1 if above else -1), textcoords="offset points",
        ha="right" if right else "left", va="bottom" if above else "top", size=7.5, color="white",
        weight="bold", bbox={"boxstyle": "square,pad=0.15", "fc": colour, "ec": "none"},
    )  # fmt: skip
