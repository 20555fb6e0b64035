"""The page of images: ground truth and every network's detections side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gan_kd.report.plots import COLOURS, SOFT, STYLE
from gan_kd.report.run import Run

COLUMNS = ("teacher", "baseline", "distilled")
IMAGES = 10
SCORE = 0.4  # detections below are not drawn: an SSD gives a hundred an image, most of them near zero
# Dark enough to carry white text; classes beyond the tenth share a colour, so the name is always written beside the box.
PALETTE = ("#c1272d", "#0072b2", "#00795c", "#7b3fa0", "#b35900", "#00708a", "#a3195b", "#4d6600", "#5c4033", "#3949ab")


def choose(run: Run, read: bool = True) -> tuple[list[dict[str, Any]], int]:
    """Samples to show, at most `IMAGES`, and how many the run names whose image is not on this machine.

    A sample is {"id", "path", "gt", "detections": {network: rows}}; a network without that sample has no entry.
    """
    samples: dict[str, dict[str, Any]] = {}
    for name in reversed(COLUMNS):
        for sample in run.networks[name].eval.get("samples") or ():
            entry = samples.setdefault(str(sample["id"]), {**sample, "detections": {}})
            entry["detections"][name] = sample["detections"]
    found = []
    for sample in samples.values():
        paths = (Path(sample["image"]).expanduser(), run.folder / sample["image"])
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found.append({**sample, "path": path})
    return found[:IMAGES], len(samples) - len(found)


def detections(run: Run, samples: Sequence[dict[str, Any]], classes: Sequence[str], path: Path) -> bool:
    """Draw `samples` (from `choose`) as a JPEG, one row an image; False where none of them can be decoded."""
    images = [(sample, image) for sample in samples for image in [_read(sample["path"])] if image is not None]
    if not images:
        return False
    titles = ("ground truth", *COLUMNS)
    heights = [min(1.0, image.shape[0] / image.shape[1]) for _, image in images]
    width, gap, top = 3.0, 0.06, 0.3
    size = (4 * width + 3 * gap, top + sum(height * width + gap for height in heights))
    with rc_context(STYLE):
        figure = Figure(figsize=size)
        y = size[1] - top
        for row, (sample, image) in enumerate(images):
            y -= heights[row] * width
            for column, title in enumerate(titles):
                place = (column * (width + gap) / size[0], y / size[1], width / size[0], heights[row] * width / size[1])
                axes = figure.add_axes(place)
                axes.imshow(image, extent=(0, sample["width"], sample["height"], 0), interpolation="nearest")
                axes.set_axis_off()
                _boxes(axes, sample, None if column == 0 else title, classes, run.networks)
                if row == 0:
                    place_x = (column * (width + gap) + width / 2) / size[0]
                    colour = COLOURS.get(title, SOFT)
                    figure.text(place_x, 1 - 0.15 / size[1], title, ha="center", va="center", weight="bold", color=colour, size=12)
            y -= gap
        figure.savefig(path, dpi=100, facecolor="white", pil_kwargs={"quality": 82, "optimize": True})
    return True


def _read(path: Path) -> Optional[np.ndarray]:
    """RGB uint8 (H,W,3), at most 320 px wide, as large as it is drawn; None where it is no image."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        return None
    scale = min(1.0, 320 / image.shape[1])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[..., ::-1])


def _boxes(axes: Axes, sample: dict[str, Any], network: Optional[str], classes: Sequence[str], networks: dict[str, Any]) -> None:
    """Boxes of one panel: the ground truth where `network` is None, else its detections, dashed where they hit no object."""
    truth = np.array([row[:5] for row in sample["gt"]], dtype=np.float64).reshape(-1, 5)
    if network is None:
        for row in sample["gt"]:
            _box(axes, sample, row[:4], int(row[4]), classes[int(row[4])] + (" (difficult)" if row[5] else ""), "-")
        return
    if network not in sample["detections"]:
        known = networks[network].eval
        _say(axes, "this image was not kept" if known else "not run")
        return
    shown = sorted((row for row in sample["detections"][network] if row[5] >= SCORE), key=lambda row: row[5])
    for row in shown:
        same = truth[truth[:, 4] == row[4], :4]
        hit = bool((iou(np.asarray(row[:4], dtype=np.float64), same) >= 0.5).any())
        _box(axes, sample, row[:4], int(row[4]), f"{classes[int(row[4])]} {100 * row[5]:.0f}", "-" if hit else (0, (2, 1.5)))
    if not shown:
        _say(axes, f"no detection above {SCORE:g}")


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of `box` (4,) and `others` (n,4), corners xmin, ymin, xmax, ymax in pixels: float64 (n,)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    return shared / np.maximum(np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - shared, 1e-9)


def _box(axes: Axes, sample: dict[str, Any], box: Sequence[float], label: int, text: str, line: Any) -> None:
    """One box with its name, inside the image even where the box is at its edge."""
    colour = PALETTE[label % len(PALETTE)]
    limit = np.array([sample["width"], sample["height"]] * 2, dtype=np.float64)
    x0, y0, x1, y1 = np.clip(np.asarray(box, dtype=np.float64), 0, limit)
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec="white", lw=3.0, alpha=0.7))
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=colour, lw=1.8, ls=line))
    right = x0 > 0.7 * sample["width"]
    axes.annotate(
        text, (x1 if right else x0, y0), xytext=(0, 1 if y0 > 0.07 * sample["height"] else -1), textcoords="offset points",
        ha="right" if right else "left", va="bottom" if y0 > 0.07 * sample["height"] else "top", size=7.5, color="white",
        weight="bold", bbox={"boxstyle": "square,pad=0.15", "fc": colour, "ec": "none"},
    )  # fmt: skip


def _say(axes: Axes, text: str) -> None:
    """A remark in the middle of a panel."""
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", size=9, color="white",
        bbox={"boxstyle": "round,pad=0.4", "fc": "#1c2024", "ec": "none", "alpha": 0.75},
    )  # fmt: skip
