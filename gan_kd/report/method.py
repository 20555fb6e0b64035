"""The picture of the method for the README: `python -m gan_kd.report.method results/method.png`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from gan_kd.errors import UsageError
from gan_kd.report.page import COLOURS

INK, SOFT, FUR = "#1c2024", "#5d666f", "#8a6f56"
TEACHER, STUDENT, CRITIC, HEAD = COLOURS["teacher"], COLOURS["distilled"], "#8f4a8b", COLOURS["baseline"]
SIDES = (32, 16, 8, 4, 2, 1)  # of the maps at 512 px input (paper, figure 2)


def draw(path: Path) -> Path:
    """Draw the method into `path` (png or svg); the path. Raises UsageError for another kind of file."""
    if path.suffix not in (".png", ".svg"):
        raise UsageError(f"{path}: the picture is written as .png or .svg")
    with rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 11,
            "mathtext.fontset": "dejavusans",
            "svg.hashsalt": "method",
        }
    ):
        figure = Figure(figsize=(11.3, 5.3))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 113), ylim=(0, 53))
        axes.set_axis_off()
        _image(axes, 8.4, 27)
        _networks(axes)
        _critics(axes)
        _head(axes)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=150, facecolor="white", metadata=metadata)
    return path


def _networks(axes: Axes) -> None:
    """Both extractors, their maps and the adapters between the student and what reads its maps."""
    for y, title, note, maps, colour, bend in (
        (41, "teacher\nextractor", "frozen", "six maps, T(x)", TEACHER, -0.15),
        (12.5, "student\nextractor", "trained", "six maps", STUDENT, 0.15),
    ):
        _arrow(axes, (15.6, 31 if y > 27 else 23), (18.6, y), INK, bend)
        _block(axes, (26.5, y), (15, 10), title, note, colour)
        _arrow(axes, (34.5, y), (37.1, y), colour)
        _maps(axes, 38, y, colour)
        axes.text(45.5, y + 6.8, maps, color=colour)
    _arrow(axes, (54.2, 12.5), (56.8, 12.5), STUDENT)
    _block(axes, (60.8, 12.5), (7.4, 10), "1x1", "adapters", STUDENT)
    axes.text(60.8, 18.7, "S(x)", color=STUDENT, ha="center")


def _critics(axes: Axes) -> None:
    """D-Net: a discriminator for each map, and the two losses that it gives."""
    for index in range(len(SIDES)):
        _rounded(axes, (73.2 + 0.75 * index, 28.6 - 0.6 * index), (12, 8.4), CRITIC)
    axes.text(77, 26.7, "D-Net", ha="center", va="center", color="white", weight="bold", size=12.5)
    axes.text(77, 23.9, "one critic a map", ha="center", va="center", color="white", size=9)
    _arrow(axes, (54.2, 41), (75, 33.4), TEACHER, -0.25)
    _arrow(axes, (65.2, 14.5), (75.5, 20.4), STUDENT, 0.2)
    axes.text(69.8, 40.4, "real", color=TEACHER, weight="bold")
    axes.text(75.2, 16.6, "fake", color=STUDENT, weight="bold")
    _arrow(axes, (83.7, 27.5), (87, 32.4), CRITIC)
    _arrow(axes, (83.7, 23.6), (87, 20.6), CRITIC)
    _loss(
        axes,
        33,
        r"$L_D = \mathrm{mean}[\,D(T(x)) - D(S(x))\,]$",
        "D lowers it, with its\nweights clamped",
        CRITIC,
    )
    _loss(
        axes,
        20.3,
        r"$L_G = \mathrm{mean}[\,D(S(x))\,]$",
        "the student lowers it;\nonly in the first stage",
        STUDENT,
    )


def _head(axes: Axes) -> None:
    """The SSD head on the student's maps, and its losses."""
    _block(axes, (77, 9), (12, 8), "SSD head", "starts as the teacher's", HEAD)
    _arrow(axes, (65.2, 10.8), (70.3, 9.4), STUDENT)
    _arrow(axes, (83.7, 9), (87, 9), HEAD)
    _loss(axes, 9, r"$+\, L_\mathrm{conf} + L_\mathrm{loc}$", "in every stage", STUDENT)


def _block(axes: Axes, at: tuple[float, float], size: tuple[float, float], title: str, note: str, colour: str) -> None:
    """A network part centred at `at`, with its name inside and a remark below."""
    _rounded(axes, at, size, colour)
    axes.text(*at, title, ha="center", va="center", color="white", weight="bold", size=12.5, linespacing=1.25)
    axes.text(at[0], at[1] - size[1] / 2 - 1.9, note, ha="center", va="center", color=SOFT, size=9.5)


def _rounded(axes: Axes, at: tuple[float, float], size: tuple[float, float], colour: str) -> None:
    """A filled box centred at `at`."""
    corner, style = (at[0] - size[0] / 2, at[1] - size[1] / 2), "round,pad=0,rounding_size=1.1"
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=style, fc=colour, ec="white", lw=1.1))


def _maps(axes: Axes, x: float, y: float, colour: str) -> None:
    """Six feature maps from `x` to the right, slanted sheets that grow with the logarithm of their side."""
    for side in SIDES:
        height = 3.4 + 1.5 * math.log2(side)
        depth, low = 0.22 * height, y - height / 2
        corners = [(x, low), (x + depth, low + depth), (x + depth, low + height + depth), (x, low + height)]
        axes.add_patch(Polygon(corners, closed=True, fc=colour, alpha=0.35, ec=colour, lw=1.2))
        axes.text(x + depth / 2, low - 1.2, str(side), ha="center", va="center", color=SOFT, size=8.5)
        x += 2.8


def _image(axes: Axes, x: float, y: float) -> None:
    """An input image with one object in its box."""
    axes.add_patch(Rectangle((x - 7, y - 6), 14, 12, fc="#dfe9f1"))
    ground = [(x - 7, y - 6), (x - 7, y - 2.5), (x, y - 1), (x + 7, y - 3), (x + 7, y - 6)]
    axes.add_patch(Polygon(ground, fc="#c9d8b8"))
    axes.add_patch(Rectangle((x - 7, y - 6), 14, 12, fill=False, ec=SOFT, lw=1.2))
    axes.add_patch(Ellipse((x - 0.3, y - 1), 6, 3.2, fc=FUR))
    axes.add_patch(Ellipse((x + 2.8, y + 0.7), 2.6, 2.2, fc=FUR))
    for leg in (-2.5, -1.5, 0.7, 1.7):
        axes.add_patch(Rectangle((x + leg, y - 4.2), 0.55, 3, fc=FUR))
    axes.add_patch(Rectangle((x - 4, y - 4.7), 9, 7.2, fill=False, ec=HEAD, lw=1.6))
    axes.text(x, y - 8.2, "image x", ha="center", color=INK)


def _loss(axes: Axes, y: float, formula: str, note: str, colour: str) -> None:
    """A loss at the right edge and who lowers it."""
    axes.text(87.8, y, formula, va="center", color=colour, size=12)
    axes.text(87.8, y - 1.7, note, va="top", color=SOFT, size=9.5)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, bend: float = 0.0) -> None:
    """An arrow, bent to one side by a part of its length."""
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 13, "shrinkA": 0, "shrinkB": 0, "lw": 1.8}
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", color=colour, **style))


def main(arguments: Sequence[str]) -> int:
    """Command line: the one argument is the file to write."""
    if len(arguments) != 1:
        print("usage: python -m gan_kd.report.method FILE.png", file=sys.stderr)
        return 2
    try:
        print(draw(Path(arguments[0])))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
