"""The plots of a study's report, one PNG each. Imported only to draw, for Matplotlib loads slowly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gan_kd.report.plots import SOFT, finish, save, styled
from gan_kd.study.report.arms import BEST, LAST, Arm

HEADS = {LAST: "last epoch", BEST: "best epoch"}


@styled
def curves(arms: Sequence[Arm], colours: Mapping[str, str], path: Path) -> bool:
    """mAP over epochs: a thin line a seed, a thick one for the mean where all of the arm's seeds were evaluated."""
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    axes = figure.subplots()
    ends = []
    for arm in arms:
        lines = [curve for curve in (cell.curve for cell in arm.cells) if curve]
        for line in lines:
            axes.plot(*zip(*line.items()), color=colours[arm.label], lw=0.8, alpha=0.45)
        shared = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
        if shared:
            mean = [float(np.mean([line[epoch] for line in lines])) for epoch in shared]
            axes.plot(shared, mean, color=colours[arm.label], lw=2.2, marker="o" if len(shared) == 1 else None)
            ends.append((mean[-1], arm.label, colours[arm.label]))
    if not ends:
        return False
    axes.set(title="mAP on the validation images, mean and single seeds", ylabel="mAP (%)", xlabel="epochs")
    finish(axes, ends, [])
    save(figure, path)
    return True


@styled
def differences(arms: Sequence[Arm], baseline: Arm, colours: Mapping[str, str], path: Path) -> bool:
    """Each arm's mAP minus the baseline's of the same seed: a dot a seed, the mean with its 95% interval."""
    shown = [arm for arm in arms if arm is not baseline and arm.differences(baseline, LAST)]
    if not shown:
        return False
    figure = Figure(figsize=(8.6, 1.3 + 0.5 * len(shown)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    for axes, which in zip(panels, (LAST, BEST)):
        _forest(axes, shown, baseline, which, colours)
        axes.set(title=HEADS[which], xlabel=f"mAP − {baseline.label}'s, points")
    panels[0].set_yticks(range(len(shown)), [arm.label for arm in shown])
    panels[0].set_ylim(len(shown) - 0.5, -0.5)
    save(figure, path)
    return True


def _forest(axes: Axes, arms: Sequence[Arm], baseline: Arm, which: str, colours: Mapping[str, str]) -> None:
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.axvline(0, color=SOFT, lw=1.1)
    for place, arm in enumerate(arms):
        found = list(arm.differences(baseline, which).values())
        interval = arm.interval(baseline, which)
        if interval is None:
            continue
        colour = colours[arm.label]
        axes.plot(found, [place + 0.18] * len(found), "o", ms=4, mfc="none", mec=colour, alpha=0.8)
        axes.plot([interval.low, interval.high], [place - 0.08] * 2, color=colour, lw=2)
        axes.plot(interval.mean, place - 0.08, "D", ms=6, color=colour)
