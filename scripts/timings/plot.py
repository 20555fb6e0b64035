"""The plot of the benchmark. Imported only to draw, for Matplotlib loads slowly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from gan_kd.report.page import COLOURS
from gan_kd.report.plots import INK, SOFT, save, styled
from gan_kd.system.timing import Result

REACHED, MISSED = COLOURS["baseline"], COLOURS["distilled"]


@styled
def ratios_against_aims(results: Sequence[Result], path: Path) -> bool:
    """Median and quartiles of every ratio beside its aim, on a logarithmic axis; False with nothing to draw."""
    if not results:
        return False
    figure = Figure(figsize=(8.6, 1.1 + 0.42 * len(results)), layout="constrained")
    axes = figure.subplots()
    for row, result in enumerate(results):
        colour = REACHED if result.reached else MISSED
        axes.plot(result.spread, [row, row], color=colour, lw=3, alpha=0.4)
        axes.plot(result.ratio, row, "o", color=colour, ms=6)
        axes.plot([result.aim] * 2, [row - 0.32, row + 0.32], color=INK, lw=1.4)
        text = f"{result.ratio:.2f}, aim {result.bound}: {'reached' if result.reached else 'missed'}"
        axes.annotate(text, (1.012, row), xycoords=axes.get_yaxis_transform(), color=colour, fontsize=8.5, va="center")
    axes.set_xscale("log")
    values = [value for result in results for value in (result.ratio, result.aim, *result.spread)]
    axes.set_xlim(min(0.8, 0.9 * min(values)), max(1.25, 1.15 * max(values)))
    for which in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        which(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "125" else "")
    axes.axvline(1, color=SOFT, lw=0.9, ls=":")
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_yticks(range(len(results)), [result.key for result in results], color=INK)
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.set(title="ratios and their aims", xlabel="ratio (logarithmic)")
    save(figure, path)
    return True
