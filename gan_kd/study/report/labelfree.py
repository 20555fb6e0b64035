"""The page of the label-free test (scripts/label_free.py), and its table for a study's page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_kd.errors import UsageError
from gan_kd.report import page
from gan_kd.system.strict_json import with_nan
from gan_kd.system.untrusted import read_json

JSON, PICTURE, NAME = "label-free.json", "label-free.png", "label-free"
REMARK = (
    "The student's backbone and adapters learned from each method alone, without a label; the head is the teacher's "
    "and stood still. L_conf and L_loc: on {images} held-out images through that head, mean over the seeds, lowest and "
    "highest in brackets. Attention: cosine of student's and teacher's attention at the two largest maps, at the end. "
    "Push: before the first step, the cosine of the direction in which the method moves a map with the way to the "
    "teacher's map of the same image, and the part of the push that is the same for all images (1: all are pushed "
    "alike); maps of {sides} cells. The trainings are short ({steps} steps) and have no labels: the order of the "
    "methods is not that of their mAP."
)


def read(folder: Path) -> dict[str, Any] | None:
    """What the test left in `folder`; None where it was not run. UsageError where it is damaged."""
    path = folder / JSON
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = read_json(path)
        found.update({key: with_nan(found[key]) for key in ("rows", "teacher")})
        table(found)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(f"{path} is not what scripts/label_free.py writes ({error}); run it again") from error
    return found


def table(found: dict[str, Any]) -> page.Table:
    """A row for each method, the start and the teacher first."""
    rows = found["rows"]
    start = [row["curve"][0] for row in rows]
    body = [
        ("start", *(_range([one[key] for one in start]) for key in ("conf", "loc")), _attention(start), "", ""),
        ("the teacher itself", *(f"{found['teacher'][key]:.2f}" for key in ("conf", "loc")), "", "", ""),
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        ends = [row["curve"][-1] for row in own]
        losses = (_range([one[key] for one in ends]) for key in ("conf", "loc"))
        body.append((method, *losses, _attention(ends), *(_by_map(own, key) for key in ("cosine", "common"))))
    head = ("method", "L_conf", "L_loc", "attention", "push with T − S, by map", "push alike, by map")
    return page.Table(head, body, "lrrrrr")


def remark(found: dict[str, Any]) -> str:
    """How the table is to be read."""
    sides = " ".join(map(str, found["maps"]))
    return REMARK.format(images=found["images"], sides=sides, steps=found["steps"])


def write(folder: Path) -> Path:
    """Write label-free.md and .html from label-free.json in `folder`; the path of the HTML."""
    found = read(folder)
    assert found is not None
    _draw(found, folder / PICTURE)
    alt = "L_conf on held-out images over the steps, a line for each method, the mean over the seeds"
    machine = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    seeds = ", ".join(map(str, dict.fromkeys(row["seed"] for row in found["rows"])))
    setting = [
        ("recipe", f"{found['recipe']} ({found['recipe_hash'][:16]})"),
        ("seeds", seeds),
        ("commit", found["commit"]),
        ("machine", machine),
    ]
    blocks: list[page.Block] = [
        page.Text(_finding(found), "lead"),
        table(found),
        page.Text(remark(found), "note"),
        page.Figure(PICTURE, alt, "Mean over the seeds."),
        page.Section("How it was made"),
        page.Code(found["command"], "sh"),
        page.Table(("", ""), setting, "ll"),
    ]
    return page.write(folder, "Label-free test", blocks, NAME)


def _finding(found: dict[str, Any]) -> str:
    """Which methods lower L_conf on every seed, and the best of them."""
    falls: dict[str, list[float]] = {}
    for row in found["rows"]:
        falls.setdefault(row["method"], []).append(row["curve"][0]["conf"] - row["curve"][-1]["conf"])
    lower = {name: statistics.fmean(fall) for name, fall in falls.items() if min(fall) > 0}
    others = [name for name in falls if name not in lower]
    if not lower:
        return "No method lowers L_conf on every seed."
    best = max(lower, key=lambda name: lower[name])
    text = f"Lower L_conf on every seed: {'; '.join(lower)}. {best} lowers it most, by {lower[best]:.2f}."
    return f"{text} Not: {'; '.join(others)}." if others else text


def _range(values: Sequence[float]) -> str:
    text = f"{statistics.fmean(values):.2f}"
    return text if len(values) == 1 else f"{text} [{min(values):.2f}, {max(values):.2f}]"


def _attention(ends: Sequence[dict[str, Any]]) -> str:
    return " ".join(f"{statistics.fmean(one['attention'][k] for one in ends):.2f}" for k in (0, 1))


def _by_map(rows: Sequence[dict[str, Any]], key: str) -> str:
    return " ".join(f"{statistics.fmean(values):.2f}" for values in zip(*(row[key] for row in rows)))


def _draw(found: dict[str, Any], path: Path) -> None:
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure

    from gan_kd.report.plots import STYLE, save

    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.6), layout="constrained")
        axes = figure.subplots()
        methods = list(dict.fromkeys(row["method"] for row in found["rows"]))
        for index, method in enumerate(methods):
            curves = [row["curve"] for row in found["rows"] if row["method"] == method]
            steps = [one["step"] for one in curves[0]]
            means = [statistics.fmean(one["conf"] for one in at) for at in zip(*curves)]
            style = "-" if index % 2 else "--"
            axes.plot(steps, means, style, color=colormaps["tab20"](index % 20), lw=1.6, label=method)
        axes.axhline(found["teacher"]["conf"], color="#59636e", lw=1.2, label="the teacher itself")
        axes.set(title="L_conf through the teacher's head, held-out images", xlabel="steps without a label")
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        save(figure, path)
