"""How the distillers stood against the detection loss over a training, one line a map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from gan_kd.report.plots import BATCHES, SOFT, changes, finish, logarithmic, save, series, styled
from gan_kd.report.run import Network, number

DETECTION = "gradient_detection"
#: Titles and labels of the lists of a record; each other gradient_NAME is drawn as its ratio to L_det's.
LISTS = {
    "critic_gap": ("critic gap, D(student) − D(teacher)", "mean score"),
    "critic_at_bound": ("weights of D that stand at the clamp", "share"),
    "fine_grained_cells": ("cells near objects", "share of the map"),
    "region_cells": ("cells in the region that is imitated", "share of the map"),
    "main_region": ("priors in the main region", "share of the map"),
    "main_edges": ("edges in the main region, student and teacher", "KL, nats"),
    "vlr_region": ("priors in the valuable region", "share of the map"),
    "vlr_edges": ("edges in the valuable region, student and teacher", "KL, nats"),
    "attention_cosine": ("attention of student and teacher", "cosine similarity"),
}
LOSSES = {
    "adversarial": "L_adv", "adversarial_match": "D\'s layers", "cosine_attention": "cosine attention",
    "feature_imitation": "imitation", "fine_grained": "fine-grained imitation", "cwd": "CWD",
    "information_map": "information map", "outputs": "outputs", "outputs_boxes": "outputs' boxes",
    "ld": "main LD", "ld_vlr": "VLR LD", "kd": "main KD", "kd_vlr": "VLR KD",
    "region_imitation": "imitation in a region", "bounded_regression": "bounded regression",
}  # fmt: skip
DECADES = 6  # more would be rounding


class Panel(NamedTuple):
    """`lines`: steps and values of each map, the largest map first."""

    name: str
    title: str
    label: str
    lines: list[tuple[np.ndarray, np.ndarray]]


@styled
def draw(networks: Sequence[Network], path: Path) -> bool:
    """Small multiples of what the diagnosis records of the distilled network hold."""
    chosen = [network for network in networks if network.diagnoses]
    if not chosen:
        return False
    records = [record for network in chosen for record in network.diagnoses]
    sides, places = (records[-1].get(key) or [] for key in ("maps", "places"))
    labels = [f"{side}×{side}" for side in sides]
    if len(places) == len(labels):
        labels = [f"{place} {label}" for place, label in zip(places, labels)]
    panels = [panel for panel in _panels(records, len(sides)) if any(step.size for step, _ in panel.lines)]
    if not panels:
        return False
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(8.6, 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    colours = [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0, 0.72, len(sides)))]
    for axes, panel in zip(grid, panels):
        _panel(axes, panel, colours)
        finish(axes, _ends(panel, labels, colours), changes(chosen))
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    save(figure, path)
    return True


def _panels(records: Sequence[dict[str, Any]], maps: int) -> Iterator[Panel]:
    """The gap, the gradients, then the rest; a panel without values has lines of length 0."""
    names = list(dict.fromkeys(name for record in records for name in record))
    losses = [name for name in names if name.startswith("gradient_") and name != DETECTION]
    first, *others = LISTS
    for name in (first, *losses, *others):
        title, label = LISTS.get(name, ("", ""))
        if name in losses:
            loss = name[len("gradient_") :]
            title, label = f"gradient of {LOSSES.get(loss, loss)} beside L_det's", "ratio of norms"
        lines = [series(records, lambda r, n=name, k=k: _value(r, n, k)) for k in range(maps)]
        yield Panel(name, title, label, lines)


def _value(record: dict[str, Any], name: str, k: int) -> float | None:
    """Entry `k` of a list, of a gradient its ratio to L_det's; None where it is absent, not finite or says nothing.

    Over one cell attention is always alike, and a logarithmic axis has no 0 (L_det's own, of a batch without objects
    of a map's size, included).
    """

    def at(key: str) -> float | None:
        values = record.get(key)
        return number(values[k]) if isinstance(values, list) and k < len(values) else None

    if name == "attention_cosine" and at("maps") == 1:
        return None
    value, detection = at(name), at(DETECTION)
    if value is None or not name.startswith("gradient_"):
        return value
    return value / detection if value and detection else None


def _panel(axes: Axes, panel: Panel, colours: Sequence[str]) -> None:
    values = np.concatenate([value for _, value in panel.lines])
    for (step, value), colour in zip(panel.lines, colours):
        axes.plot(step, value, color=colour, lw=1.5, marker="o", ms=2 if step.size > 1 else 4)
    axes.set(title=panel.title, ylabel=panel.label, xlabel=BATCHES)
    if panel.name == "critic_gap":
        _signed_logarithmic(axes, values)
    elif panel.name.startswith("gradient_"):
        if values.size:
            logarithmic(axes, values, DECADES)
        axes.axhline(1, color=SOFT, lw=0.9)
    elif panel.name == "critic_at_bound":
        axes.set_ylim(0, 1.02)


def _signed_logarithmic(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic y axis; where the gap of a map changed sign, linear around 0."""
    if (values > 0).all():
        logarithmic(axes, values, DECADES)
    elif (values != 0).any():
        axes.set_yscale("symlog", linthresh=float(np.median(np.abs(values[values != 0]))))
        axes.axhline(0, color=SOFT, lw=0.9)


def _ends(panel: Panel, labels: Sequence[str], colours: Sequence[str]) -> list[tuple[float, str, str]]:
    """Last value, label and colour of every line."""
    return [
        (float(value[-1]), label, colour)
        for (_, value), label, colour in zip(panel.lines, labels, colours)
        if value.size
    ]
