"""The numbers published for Localization Distillation (arXiv 2102.12252, and the README of its repository) as data.

Table 5 (other detectors) and 6 (GFocalV2) are recorded: no recipe reproduces them.
"""

from __future__ import annotations

from gan_kd.report.table import Table

_COCO = "COCO val2017, AP (%)"
_R50 = f"GFL ResNet50 <- ResNet101 (44.7), 12 epochs, {_COCO}"


def _rows(columns: tuple[str, ...], student: str, **metrics: list[float | None]) -> dict[str, dict[str, float]]:
    """Rows of a student, AP under its own name; None where nothing was published."""
    return {
        student if metric == "AP" else f"{student}, {metric}": {
            column: value for column, value in zip(columns, values) if value is not None
        }
        for metric, values in metrics.items()
    }


# Tables 1a (temperature of LD in the main region), 1b (the box-level rival) and 1c (gamma, with both regions).
_SETTINGS = (
    "none", "T 1", "T 5", "T 10", "T 15", "T 20", "TBR, margin 0.1",
    "gamma 1", "gamma 0.75", "gamma 0.5", "gamma 0.25", "gamma 0",
)  # fmt: skip
_TERMS = (
    "none", "main KD", "main LD", "main KD + main LD", "main LD + VLR LD", "main KD + main LD + VLR LD",
    "main KD + main LD + VLR LD + VLR KD", "main KD + VLR KD",
)  # fmt: skip
_IMITATION = (
    "none", "FitNets", "Inside GT box", "Main region", "Fine-Grained", "DeFeat", "GI", "Ours", "Ours + GI",
)  # fmt: skip
_STUDENTS = ("none", "main LD", "ResNet101")
_VOC = ("none", "main LD", "main LD + VLR LD + VLR KD", "main LD + VLR LD + VLR KD + GI")

TABLES: dict[int | str, Table] = {
    "LD 1": Table(
        _R50,
        "student",
        _SETTINGS,
        _rows(
            _SETTINGS,
            "ResNet50",
            AP=[40.1, 40.3, 40.9, 41.1, 40.7, 40.5, 40.5, 41.1, 41.2, 41.7, 41.8, 41.7],
            AP50=[58.2, None, None, 58.7],
            AP75=[43.1, None, None, 44.9, None, None, 43.8],
        ),
    ),
    "LD 2": Table(_R50, "student", _TERMS, _rows(_TERMS, "ResNet50", AP=[40.1, 40.2, 41.1, 41.4, 41.8, 42.1, 42.0])),
    "LD 3": Table(
        _R50,
        "student",
        _IMITATION,
        _rows(
            _IMITATION,
            "ResNet50",
            AP=[40.1, 40.7, 40.7, 41.1, 41.1, 40.8, 41.5, 42.1, 42.4],
            AP50=[58.2, 58.6, 58.6, 58.7, 58.8, 58.6, 59.6, 60.3],
            AP75=[43.1, 44.0, 44.2, 44.4, 44.8, 44.2, 45.2, 45.6, 46.2],
            APs=[23.3, 23.7, 23.1, 24.1, 23.3, 24.3, 24.3, 24.5],
            APm=[44.4, 44.4, 44.5, 44.6, 45.4, 44.6, 45.7, 46.2],
            APl=[52.5, 53.2, 53.5, 53.6, 53.1, 53.7, 53.6, 54.8],
        ),
    ),
    "LD 4": Table(
        f"GFL <- ResNet101 (44.7), 12 epochs, {_COCO}",
        "student",
        _STUDENTS,
        {
            **_rows(_STUDENTS, "ResNet18", AP=[35.8, 36.5, 37.5], AP50=[None, 52.9], AP75=[38.2, 39.3, 40.4]),
            **_rows(_STUDENTS, "ResNet34", AP=[38.9, 39.8, 41.0], AP50=[None, 56.6], AP75=[42.2, 43.1, 44.6]),
            **_rows(_STUDENTS, "ResNet50", AP=[40.1, 41.1, 42.1], AP50=[58.2, 58.7, 60.3], AP75=[43.1, 44.9, 45.6]),
        },
    ),
    "LD 5": Table(
        f"Other detectors, ResNet50 <- ResNet101, {_COCO}",
        "detector",
        ("none", "ResNet101"),
        {
            "RetinaNet": {"none": 36.9, "ResNet101": 39.0},
            "FCOS": {"none": 38.6, "ResNet101": 40.6},
            "ATSS": {"none": 39.2, "ResNet101": 41.6},
        },
    ),
    "LD 6": Table(
        f"GFocalV2, {_COCO}", "student", ("none", "ResNet101"), {"ResNet50": {"none": 41.1, "ResNet101": 42.7}}
    ),
    "LD repository 1": Table(
        "VOC07 test, trained on VOC07+12 trainval, GFL <- ResNet101, 4 epochs of the images three times, mean AP at "
        "0.50:0.95 of 11 points (%)",
        "student",
        _VOC,
        _rows(_VOC, "ResNet18", AP=[51.8, 53.0, 54.0, 54.4], AP50=[75.8, 75.9], AP75=[56.3, 57.6]),
    ),
}
