"""The plots of a report, one PNG each. Imported only to draw, for Matplotlib loads slowly.

Every function takes networks of a run and a file; with nothing to draw it writes none and returns False.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gan_kd.report.fonts import readable, style_for
from gan_kd.report.page import COLOURS
from gan_kd.report.run import Network, number

INK, SOFT, GRID = "#1c2024", "#5d666f", "#e6e9ed"
LOSSES = {
    "conf": "classification loss L_conf",
    "loc": "box loss L_loc (smooth L1)",
    "adversarial": "adversarial loss, mean D(student)",
    "cosine_attention": "cosine attention loss",
    "rpn_conf": "proposals, class loss",
    "rpn_loc": "proposals, box loss",
    "qfl": "quality focal loss",
    "giou": "box loss (GIoU)",
    "dfl": "distribution focal loss",
    "obj": "objectness loss",
    "center": "box centre loss",
    "scale": "box size loss",
    "cls": "classification loss",
    "adversarial_match": "D's layers matched",
    "feature_imitation": "squared distance of the maps",
    "fine_grained": "fine-grained imitation",
    "cwd": "channel-wise distillation",
    "information_map": "information map",
    "outputs": "teacher's classes",
    "outputs_boxes": "teacher's boxes",
    "kd": "main KD",
    "kd_vlr": "KD in the valuable region",
    "ld": "main LD",
    "ld_vlr": "LD in the valuable region",
    "region_imitation": "imitation in a region",
    "bounded_regression": "teacher bounded regression",
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": "#b9c0c8",
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "lines.solid_capstyle": "round",
}
BATCHES = "batches this network was trained on"


def styled(draw: Callable[..., bool]) -> Callable[..., bool]:
    """`draw` under this file's style, without touching the caller's."""

    def wrapped(*arguments: Any) -> bool:
        with rc_context(STYLE):
            return draw(*arguments)

    wrapped.__doc__ = draw.__doc__
    return wrapped


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write `figure`, without the date and the version that would make equal pictures differ."""
    figure.savefig(path, dpi=dpi, facecolor="white", metadata={"Software": None})


@styled
def map_curves(networks: Sequence[Network], path: Path) -> bool:
    """mAP on the validation images over training, the best epoch marked; dashed if not trained here."""
    curves = [(network, *series(network.evals, lambda record: record.get("map"))) for network in networks]
    if not any(step.size for _, step, _ in curves):
        return False  # evaluated after the training only: there is no axis to draw over
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    axes = figure.subplots()
    ends = []
    for network, step, value in curves:
        colour = COLOURS[network.name]
        if step.size:
            axes.plot(step, value, color=colour, lw=1.8, marker="o", ms=2.5 if step.size > 1 else 5)
            best = int(np.argmax(value))
            axes.plot(step[best], value[best], "o", ms=7, mfc="white", mec=colour, mew=1.8)
            ends.append((value[-1], f"{network.title}, best {value[best]:.1f}", colour))
        elif network.map is not None:
            axes.axhline(network.map, color=colour, lw=1.4, ls=(0, (5, 3)))
            ends.append((network.map, f"{network.title} {network.map:.1f}", colour))
    axes.set(title="mAP on the validation images", ylabel="mAP (%)", xlabel=BATCHES)
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    finish(axes, ends, changes(networks))
    save(figure, path)
    return True


@styled
def losses(networks: Sequence[Network], path: Path) -> bool:
    """One panel a loss, one line a network; the critic's own loss is in `critic`."""
    named = {name for network in networks for record in network.trains for name in record.get("losses") or {}}
    known = [name for name in LOSSES if name in named] + sorted(named - set(LOSSES) - {"critic"})
    panels = []
    for name in known:
        lines = [
            (network, *series(network.trains, lambda r, n=name: (r.get("losses") or {}).get(n))) for network in networks
        ]
        if any(step.size for _, step, _ in lines):
            panels.append((name, [line for line in lines if line[1].size]))
    if not panels:
        return False
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(8.6, 2.7 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, (name, lines) in zip(grid, panels):
        ends = []
        for network, step, value in lines:
            ends.append((_curve(axes, step, value, COLOURS[network.name]), network.title, COLOURS[network.name]))
        values = np.concatenate([value for _, _, value in lines])
        if values.min() > 0 and values.max() > 5 * np.median(values):
            logarithmic(axes, values)
        axes.set(title=LOSSES.get(name, name), ylabel="loss", xlabel=BATCHES)
        finish(axes, ends, changes([network for network, _, _ in lines]))
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    save(figure, path)
    return True


@styled
def critic(networks: Sequence[Network], path: Path) -> bool:
    """D's mean score of the teacher's maps (real) and of the student's (fake), and their difference L_D."""
    records = [record for network in networks if network.name == "distilled" for record in network.trains]
    real, fake = (series(records, lambda record, k=key: record.get(k)) for key in ("critic_real", "critic_fake"))
    step, loss = series(records, lambda record: (record.get("losses") or {}).get("critic"))
    if not (real[0].size and fake[0].size and step.size):
        return False
    figure = Figure(figsize=(8.6, 2.9), layout="constrained")
    scores, difference = figure.subplots(1, 2)
    ends = [
        (_curve(scores, *real, COLOURS["teacher"]), "real", COLOURS["teacher"]),
        (_curve(scores, *fake, COLOURS["distilled"]), "fake", COLOURS["distilled"]),
    ]
    scores.set(title="real: D(teacher), fake: D(student)", ylabel="mean score of a map", xlabel=BATCHES)
    finish(scores, ends, [])
    purple = "#8f4a8b"
    end = _curve(difference, step, loss, purple)
    difference.axhline(0, color=SOFT, lw=0.9)
    difference.set(title="L_D = D(teacher) − D(student)", ylabel="sum over the maps", xlabel=BATCHES)
    finish(difference, [(end, "L_D", purple)], [])
    save(figure, path)
    return True


@styled
def learning_rate(networks: Sequence[Network], path: Path) -> bool:
    """Learning rate of each network's own optimiser."""
    figure = Figure(figsize=(8.6, 2.4), layout="constrained")
    axes = figure.subplots()
    ends, seen = [], []
    for index, network in enumerate(networks):
        step, value = series(network.trains, lambda record: record.get("lr"))
        if step.size:
            # Schedules are often equal: later lines are thinner, so that those below them can be seen.
            width = 1.6 + 1.2 * (len(networks) - 1 - index)
            axes.plot(step, value, color=COLOURS[network.name], lw=width, drawstyle="steps-post")
            ends.append((value[-1], network.title, COLOURS[network.name]))
            seen.append(value)
    if not ends:
        return False
    rates = np.concatenate(seen)
    if rates.max() > 5 * rates.min():
        logarithmic(axes, rates)
    axes.set(title="learning rate", ylabel="learning rate", xlabel=BATCHES)
    finish(axes, ends, changes(networks))
    save(figure, path)
    return True


@styled
def class_bars(networks: Sequence[Network], path: Path) -> bool:
    """AP of every class, one bar a network, at most 20 classes a row."""
    shown = [network for network in networks if network.ap]
    classes = list(dict.fromkeys(name for network in shown for name in network.ap))
    if not classes:
        return False
    font = style_for(classes)["font.family"]
    groups = np.array_split(np.arange(len(classes)), (len(classes) + 19) // 20)
    figure = Figure(figsize=(8.6, 0.4 + 2.6 * len(groups)), layout="constrained")
    width = 0.8 / len(shown)
    for row, (axes, group) in enumerate(zip(figure.subplots(len(groups), 1, squeeze=False).ravel(), groups)):
        place = np.arange(len(group))
        for index, network in enumerate(shown):
            values = [network.ap.get(classes[k], np.nan) for k in group]
            left = place + (index - (len(shown) - 1) / 2) * width
            bars = axes.bar(left, values, width * 0.92, color=COLOURS[network.name], label=network.title)
            if len(group) <= 8:
                labels = ["" if np.isnan(value) else f"{value:.0f}" for value in values]
                axes.bar_label(bars, labels, fontsize=7.5, color=SOFT, padding=1.5)
        slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(group) > 8 else {}
        axes.set_xticks(place, [readable(classes[k]) for k in group], color=INK, family=font, **slant)
        axes.tick_params(axis="x", length=0)
        axes.set(ylabel="AP (%)", xlim=(-0.6, len(group) - 0.4), ylim=(0, 105))
        if row == 0:
            axes.set_title("average precision by class")
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(shown), frameon=False, borderpad=0)
    save(figure, path)
    return True


@styled
def seed_curves(runs: Sequence[Sequence[Network]], path: Path) -> bool:
    """mAP curves of several seeds: a thin line each, a thick one for the mean where all were evaluated."""
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    axes = figure.subplots()
    ends = []
    for name, colour in COLOURS.items():
        found = [network for networks in runs for network in networks if network.name == name]
        lines = [series(network.evals, lambda record: record.get("map")) for network in found]
        lines = [line for line in lines if line[0].size]
        for step, value in lines:
            axes.plot(step, value, color=colour, lw=0.9, alpha=0.55)
        shared = sorted(set.intersection(*(set(step) for step, _ in lines))) if lines else []
        if shared:
            mean = np.mean([[value[list(step).index(x)] for x in shared] for step, value in lines], axis=0)
            axes.plot(shared, mean, color=colour, lw=2.2)
            ends.append((mean[-1], found[0].title, colour))
    if not ends:
        return False
    axes.set(title="mAP on the validation images, mean and single seeds", ylabel="mAP (%)", xlabel=BATCHES)
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    finish(axes, ends, [])
    save(figure, path)
    return True


def series(records: Sequence[dict[str, Any]], get: Callable[..., Any]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of `get(record)`, float64 (n,) each, in the order of the file."""
    pairs = [(number(record.get("step")), number(get(record))) for record in records]
    kept = [(step, value) for step, value in pairs if step is not None and value is not None]
    both = np.array(kept, dtype=np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _curve(axes: Axes, step: np.ndarray, value: np.ndarray, colour: str) -> float:
    """Draw a noisy series, a long one pale under its running mean. Returns the last value in full colour."""
    window = value.size // 40
    if window < 2:
        axes.plot(step, value, color=colour, lw=1.6, marker="o" if value.size == 1 else None)
        return float(value[-1])
    axes.plot(step, value, color=colour, lw=0.6, alpha=0.3)
    mean = np.convolve(value, np.ones(window) / window, mode="valid")
    axes.plot(step[window - 1 :], mean, color=colour, lw=1.8)
    return float(mean[-1])


def logarithmic(axes: Axes, values: np.ndarray, decades: int = 3) -> None:
    """A logarithmic y axis of so many decades at most: the last rates of a cosine are as good as zero."""
    top, low = 1.6 * values.max(), values[values > 0].min() / 1.3
    low = max(low, top / 10**decades)
    digits = "1" if top > 50 * low else "125"
    axes.set_yscale("log")
    axes.set_ylim(low, top)
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(lambda y, _: f"{y:g}" if f"{y:e}"[0] in digits else "")


def changes(networks: Sequence[Network]) -> list[tuple[float, str]]:
    """Where a later stage of the distilled network starts, and its name, as `finetune`."""
    found: list[tuple[float, str]] = []
    records = [record for network in networks if network.name == "distilled" for record in network.trains]
    for before, after in zip(records, records[1:]):
        if before.get("stage") != after.get("stage") and number(before.get("step")) is not None:
            found.append((float(before["step"]), str(after.get("stage"))))
    return found


def finish(axes: Axes, ends: Sequence[tuple[float, str, str]], changes: Sequence[tuple[float, str]]) -> None:
    """Label every line at the right edge, apart where they would overlap; mark the stages; thousands as k."""
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if abs(x) >= 1000 else f"{x:g}")
    last = axes.dataLim.x1
    axes.set_xlim(0, 1.01 * last)
    axes.get_ylim()  # Matplotlib scales an axis when it is asked for; the labels below need the final one
    for step, stage in changes:
        if step < last:
            axes.axvline(step, color=SOFT, lw=0.9, ls=":")
            axes.annotate(f" {stage}", (step, 1), xycoords=axes.get_xaxis_transform(), fontsize=8, color=SOFT, va="top")
    assert axes.figure is not None
    gap = 12.5 / 72 * axes.figure.dpi / axes.bbox.height
    to_axes = axes.transScale + axes.transLimits
    lowest = -gap  # so that no label stands below the axis, whatever was cut off there
    for place, text, colour in sorted(
        (float(to_axes.transform((0, value))[1]), text, colour) for value, text, colour in ends
    ):
        lowest = max(place, lowest + gap)
        axes.annotate(text, (1.012, lowest), xycoords="axes fraction", color=colour, fontsize=9, va="center")
