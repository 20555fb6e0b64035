"""Attention maps of every network over the same images, side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import cv2
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gan_kd.report.page import COLOURS
from gan_kd.report.photos import FLAT, GAP, read
from gan_kd.report.plots import STYLE
from gan_kd.report.run import Run

ORDER = ("teacher", "distilled", "baseline", "control")
WIDTH, TOP = 1.45, 0.42  # inches: of a panel, for the titles
DPI = 110
BRIGHTEST = 97  # percentile of a map's cells from which on all are drawn alike: a border cell may outshine all others


def choose(run: Run, photos: bool) -> tuple[list[str], list[dict[str, Any]]]:
    """Networks with attention maps, and the samples that all of them have it of; `photos`: and whose image is here.

    A sample is as in eval.json, with `path` (None without `photos`) and `attention` by network.
    """
    of = {
        name: {
            str(sample["id"]): sample
            for sample in run.networks[name].eval.get("samples") or ()
            if "attention" in sample
        }
        for name in ORDER
    }
    names = [name for name in ORDER if of[name]]
    found = []
    for key, sample in (of[names[0]] if names else {}).items():
        paths = (Path(os.path.expanduser(sample["image"])), run.folder / sample["image"])
        path = next((path for path in paths if path.is_file()), None) if photos else None
        if all(key in of[name] for name in names) and (path is not None or not photos):
            found.append({**sample, "path": path, "attention": {name: of[name][key]["attention"] for name in names}})
    return names, found


def decode(rows: Sequence[str]) -> np.ndarray:
    """Rows of hexadecimal cells (gan_kd.evaluation.attention) as float32 (side, side), 0 to 1."""
    return np.array([list(bytes.fromhex(row)) for row in rows], np.float32) / 255


def draw(
    names: Sequence[str],
    samples: Sequence[dict[str, Any]],
    target: Path | BinaryIO,
    titles: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Draw what `choose` gave as a JPEG, one row an image; False where there is nothing to draw.

    titles: of networks that the picture calls by another name.
    """
    images = [None if sample["path"] is None else read(sample["path"]) for sample in samples]
    rows = [(s, image) for s, image in zip(samples, images) if image is not None or s["path"] is None]
    if not rows:
        return False
    first = 0 if rows[0][1] is None else 1  # the column of the images themselves
    columns = [(name, k) for name in names for k in range(len(rows[0][0]["attention"][name]))]
    heights = [WIDTH * min(1.3, max(FLAT, sample["height"] / sample["width"])) for sample, _ in rows]
    wide = (first + len(columns)) * (WIDTH + GAP) - GAP
    high = TOP + sum(heights) + GAP * (len(heights) - 1)
    with rc_context(STYLE):
        figure = Figure(figsize=(wide, high))
        for index, ((sample, image), height) in enumerate(zip(rows, heights)):
            bottom = high - TOP - sum(heights[: index + 1]) - GAP * index
            places = [column * (WIDTH + GAP) / wide for column in range(first + len(columns))]
            panels = [figure.add_axes((left, bottom / high, WIDTH / wide, height / high)) for left in places]
            for axes in panels:
                axes.set_axis_off()
            if image is not None:
                panels[0].imshow(image, aspect="auto")
            for axes, (name, k) in zip(panels[first:], columns):
                heat = decode(sample["attention"][name][k])
                _panel(axes, heat, image)
                if index == 0:
                    title = f"{titles.get(name, name)}\n{heat.shape[0]}×{heat.shape[1]}"
                    axes.set_title(title, color=COLOURS[name], loc="center", fontsize=8.5, pad=3)
        options = {"quality": 85, "optimize": True}
        figure.savefig(target, format="jpeg", dpi=DPI, facecolor="white", pil_kwargs=options)
    return True


def _panel(axes: Axes, heat: np.ndarray, image: np.ndarray | None) -> None:
    """The map stretched over the grey image, or by itself."""
    top = max(float(np.percentile(heat, BRIGHTEST)), 1e-3)
    if image is None:
        axes.imshow(heat, cmap="inferno", vmin=0, vmax=top, interpolation="nearest", aspect="auto")
        return
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    smooth = cv2.resize(heat, (grey.shape[1], grey.shape[0]), interpolation=cv2.INTER_LINEAR)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, aspect="auto")
    axes.imshow(smooth, cmap="inferno", vmin=0, vmax=top, alpha=0.6, aspect="auto")
