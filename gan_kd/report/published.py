"""The published numbers of the papers that recipes reproduce as data, in percent.

GAN-KD: arXiv 1906.08467, its README, and the GluonCV model zoo. "LD": Localization Distillation, arXiv 2102.12252 (in
report/localization_tables.py). Rows and columns are named as the tables write them; column `none` is the student
without distillation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gan_kd.errors import UsageError
from gan_kd.report import localization_tables
from gan_kd.report.table import Table

TABLES: dict[int | str, Table] = {
    1: Table(
        "VOC07 test, trained on VOC07+12 trainval, 512 px, mAP (%)",
        "student",
        ("none", "VGG16", "ResNet50", "ResNet101", "ResNet50 + cosine attention"),
        {
            "MobileNetV1": {
                "none": 75.4,
                "VGG16": 77.3,
                "ResNet50": 77.7,
                "ResNet101": 77.6,
                "ResNet50 + cosine attention": 78.4,
            },
            "MobileNetV2": {"none": 75.9, "VGG16": 77.2, "ResNet50": 77.7, "ResNet101": 77.5},
            "ResNet18": {"none": 74.8, "VGG16": 77.2, "ResNet50": 77.6, "ResNet101": 77.3},
        },
    ),
    2: Table(
        "COCO val2017 (an older copy of the paper says test), trained on train2017, 512 px, AP (%)",
        "student",
        ("none", "ResNet50"),
        {
            "MobileNetV1_0.75": {"none": 18.0, "ResNet50": 23.0},
            "MobileNetV1": {"none": 21.7, "ResNet50": 25.4},
            "MobileNetV2": {"none": 22.0, "ResNet50": 24.6},
        },
    ),
    3: Table(
        "VOC07 test, trained on VOC07 trainval, Faster R-CNN ResNet50 <- ResNet101 (74.8 or more), mAP (%)",
        "detector",
        ("none", "ResNet101 + cosine attention", "Fine-grained Feature Imitation"),
        {
            "RoIPooling": {"none": 67.0, "ResNet101 + cosine attention": 73.8},
            "RoIAlign": {"none": 71.7, "ResNet101 + cosine attention": 74.0},
            "arXiv 1906.03609": {"none": 69.0, "Fine-grained Feature Imitation": 72.0},
        },
    ),
    "fgfi": Table(
        "Fine-grained Feature Imitation as its own paper has it (arXiv 1906.03609, tables 2 to 5), Faster R-CNN: mAP "
        "on VOC07 test, AP on COCO (%); the 69.0 that table 3 quotes is 69.1 there",
        "student <- teacher",
        ("teacher", "none", "Fine-grained Feature Imitation"),
        {
            "VOC07: ResNet50 <- ResNet101": {"teacher": 74.4, "none": 69.1, "Fine-grained Feature Imitation": 72.0},
            "VOC07: VGG11 <- VGG16": {"teacher": 70.4, "none": 59.6, "Fine-grained Feature Imitation": 67.6},
            "VOC07: half of ResNet101's channels <- ResNet101": {
                "teacher": 74.4,
                "none": 67.4,
                "Fine-grained Feature Imitation": 71.2,
            },
            "COCO: half of ResNet101's channels <- ResNet101": {
                "teacher": 34.4,
                "none": 28.8,
                "Fine-grained Feature Imitation": 31.6,
            },
            "COCO with FPN: half of ResNet50's channels <- ResNet50": {
                "teacher": 36.9,
                "none": 31.2,
                "Fine-grained Feature Imitation": 34.8,
            },
        },
    ),
    "zoo": Table(
        "SSDs of the GluonCV model zoo at 512 px (ResNet101: 79 or more, by the authors of the paper)",
        "backbone",
        ("VOC07 test, mAP (%)", "COCO val2017, AP (%)"),
        {
            "ResNet50": {"VOC07 test, mAP (%)": 80.1, "COCO val2017, AP (%)": 30.6},
            "VGG16": {"VOC07 test, mAP (%)": 79.2},
            "ResNet101": {"VOC07 test, mAP (%)": 79.0},
            "MobileNetV1": {"VOC07 test, mAP (%)": 75.4, "COCO val2017, AP (%)": 21.7},
        },
    ),
    **localization_tables.TABLES,
}
#: What stands before the number of a table, by the word for its paper in recipes.
PAPERS = {"gan_kd": "", "localization": "LD ", "localization_repository": "LD repository "}

# Column of the zoo's table that has a table's teachers; table 3 names its teacher in the caption.
_ZOO_COLUMNS: dict[int | str, str] = {1: "VOC07 test, mAP (%)", 2: "COCO val2017, AP (%)"}


def lookup(table: int | str, row: str, column: str = "none") -> float | None:
    """Published value in percent, None for a cell left empty; the default column is the baseline.

    Raises UsageError, with the names that there are, for a table, row or column that does not exist.
    """
    if table not in TABLES:
        raise UsageError(f"there is no published table {table}; there are {', '.join(map(str, TABLES))}")
    found = TABLES[table]
    if row not in found.rows:
        raise UsageError(f"published table {table} has no row {row!r}; it has {', '.join(found.rows)}")
    if column not in found.columns:
        raise UsageError(f"published table {table} has no column {column!r}; it has {', '.join(found.columns)}")
    return found.rows[row].get(column)


@dataclass(frozen=True)
class Row:
    """What was published for a recipe. `values`: percent, by network; one without a number is absent."""

    table: int | str
    row: str
    column: str
    caption: str
    values: dict[str, float]
    note: str


def for_recipe(recipe: Mapping[str, Any]) -> Row | None:
    """The row that `published` in a recipe (its mapping, as in recipe.yaml) names; None where it names none.

    Raises UsageError as `lookup` does.
    """
    named = recipe.get("published")
    if named is None:
        return None
    table: int | str = named["table"]
    row, column = named["row"], named["column"]
    paper = PAPERS[named.get("paper", "gan_kd")]  # recipes of older runs name none
    if paper:
        table = f"{paper}{table}"
    values = {"baseline": lookup(table, row)}
    if column != "none":
        values["distilled"] = lookup(table, row, column)
    teacher = column.split(" + ")[0]
    if table in _ZOO_COLUMNS and teacher in TABLES["zoo"].rows:
        values["teacher"] = lookup("zoo", teacher, _ZOO_COLUMNS[table])
    note = ""
    if table in _ZOO_COLUMNS and values["baseline"] == TABLES["zoo"].rows.get(row, {}).get(_ZOO_COLUMNS[table]):
        note = "The published baseline equals the model zoo's exactly, so it may be copied rather than trained."
    known = {network: value for network, value in values.items() if value is not None}
    return Row(table, row, column, TABLES[table].caption, known, note)


def markdown(table: int | str) -> str:
    """One published table in Markdown, an empty cell where nothing was published."""
    found = TABLES[table]
    lines = [[found.corner, *found.columns], ["---"] * (len(found.columns) + 1)]
    for row, values in found.rows.items():
        lines.append([row, *(f"{values[column]:.1f}" if column in values else "" for column in found.columns)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
