"""One network's result beside the published row that it may be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from gan_kd.recipe import Recipe, to_yaml
from gan_kd.report.published import TABLES, for_recipe


class _Measure(NamedTuple):
    """How the numbers of a table were counted; other splits, classes, sizes or metrics give others."""

    dataset: str
    val: list[str]
    metric: str
    size: int  # px: side of a square input, else the shorter one
    zoo_column: str = ""


_MEASURES: dict[int | str, _Measure] = {
    1: _Measure("voc", ["2007/test"], "voc07", 512, "VOC07 test, mAP (%)"),
    2: _Measure("coco", ["val2017"], "coco", 512, "COCO val2017, AP (%)"),
    3: _Measure("voc", ["2007/test"], "voc07", 600),
    **{f"LD {table}": _Measure("coco", ["val2017"], "coco", 800) for table in (1, 2, 3, 4)},
}
#: Names of the further measures that eval.json has of VOC's rules (`gan_kd.evaluation.also`).
ALSO = {"ap": "AP", "voc10": "AP50", "ap75": "AP75"}


def published_for(recipe: Recipe, network: str, value: float | None) -> dict[str, Any] | None:
    """The published figure for a network of a recipe, None where there is none to compare with.

    network: teacher (the zoo's number), baseline (column none), distilled. value: what was measured here, %.
    Keys: table, caption, row, column, value, difference (here - published in percentage points, None without
    a value), cells (the whole row), note.
    """
    found = for_recipe(yaml.safe_load(to_yaml(recipe)))
    if found is None or network not in found.values or not _measured_alike(recipe, found.table):
        return None
    table: int | str = found.table
    row, column = found.row, "none" if network == "baseline" else found.column
    if network == "teacher":
        table, row, column = "zoo", found.column.split(" + ")[0], _MEASURES[found.table].zoo_column
    published = found.values[network]
    return {
        "table": table,
        "caption": TABLES[table].caption,
        "row": row,
        "column": column,
        "value": published,
        "difference": None if value is None else value - published,
        "cells": TABLES[table].rows[row],
        "note": found.note if network == "baseline" else "",
    }


def taught_otherwise(recipe: Recipe, result: Mapping[str, Any]) -> str | None:
    """Why a measured student is not the one that the recipe's published figure is of; None where it may be.

    result: what eval.json holds, of a params file from wherever.
    """
    if result["network"] != "distilled":
        return None
    teacher, distillers = result["teacher"], result["distillers"]
    if teacher is None:
        return "not compared with a published figure: the file does not say which teacher it learnt from"
    if teacher["backbone"] != recipe.teacher.backbone:
        return (
            f"not compared with a published figure: it learnt from {teacher['backbone']}, not {recipe.teacher.backbone}"
        )
    if distillers is not None and distillers != recipe.distillers_of("distilled"):
        return f"not compared with a published figure: its distillers were {', '.join(distillers)}"
    return None


def _measured_alike(recipe: Recipe, table: int | str) -> bool:
    data, ours = recipe.data, recipe.eval
    measure = _MEASURES.get(table)
    if measure is None or data.holdout:
        return False
    size = data.size if recipe.gfl.short is None else recipe.gfl.short
    if (data.classes, data.val, size) != (measure.dataset, measure.val, measure.size):
        return False
    return ours.metric == measure.metric and (ours.metric == "coco" or ours.iou == 0.5)


def text(result: Mapping[str, Any], published: Mapping[str, Any] | None, otherwise: str | None = None) -> str:
    """Per-class AP, mAP, further measures and the published row with the difference, as lines for a terminal.

    result: what eval.json holds. published: of `published_for`. otherwise: of `taught_otherwise`.
    """
    name = "AP" if result["metric"] == "coco" else "mAP"
    further = {label: number for label, number in result["summary"].items() if label != name}
    if not further:
        also = result.get("also", {})
        further = {label: also[key] for key, label in ALSO.items() if key in also}
    width = max(len(label) for label in (*result["ap"], *further, "difference")) + 2
    lines = [
        f"{result['network']} of recipe {result['recipe']}, {result['params_file']}",
        f"{result['metric']} on {result['images']} images, %",
        "",
        *(f"{label:<{width}}{_percent(ap):>6}" for label, ap in result["ap"].items()),
        "",
        f"{name:<{width}}{_percent(result['map']):>6}",
        *(f"{label:<{width}}{_percent(number):>6}" for label, number in further.items()),
    ]
    if published is None:
        none = otherwise or f"no published figure for the {result['network']} network of this recipe"
        return "\n".join([*lines, "", none])
    cells = ", ".join(f"{column} {value:.1f}" for column, value in published["cells"].items())
    where = "GluonCV" if published["table"] == "zoo" else f"table {published['table']}"
    lines += [
        f"{'published':<{width}}{published['value']:>6.1f}",
        f"{'difference':<{width}}{_percent(published['difference'], sign=True):>6}",
        "",
        f"{where}: {published['caption']}",
        f"{published['row']}: {cells}",
    ]
    return "\n".join([*lines, published["note"]] if published["note"] else lines)


def _percent(value: float | None, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.2f}" if sign else f"{value:.2f}"
