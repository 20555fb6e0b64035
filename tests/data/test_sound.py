"""On every data set that the check calls sound, perfect detections have an AP of 100, by VOC's rules and by COCO's.

Data sets are drawn with what other tools write: most of it is read, some of it is a fault, and what is left after
skipping the faults is sound.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_kd.data.check import check, preflight
from gan_kd.errors import UsageError
from tests.data import drawn

SETS = 40
SIZE = (48, 36)
ODD = (0.01, 0.04, 0.15)  # of the values, set by set


class Pen:
    """Draws values, a part of them odd."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.odd = ODD[seed % len(ODD)]

    def one(self, sound: Any, *odd: Any) -> Any:
        return odd[self.rng.integers(len(odd))] if self.rng.random() < self.odd else sound

    def box(self) -> list[Any]:
        """x, y, width, height; near the edges, past them, in parts of the image, as texts, or none."""
        x, y = (int(self.rng.integers(0, side - 8)) for side in SIZE)
        width, height = (int(self.rng.integers(3, side - at + 1)) for side, at in zip(SIZE, (x, y)))
        sound = [x, y, width, height]
        return self.one(
            sound, [x + 0.37, y, width - 0.5, height - 0.001], list(map(str, sound)), [-1, -0.5, 9, 9],
            [SIZE[0] - 8, SIZE[1] - 8, 9, 9], [x, y, 1, height], [x, y, 1.0000001, 5], [x, y, 0, 4], [x, y, -4, 4],
            [0.1, 0.2, 0.3, 0.4], [500, 2, 9, 9], [x, y, None, 4], [x, y, float("nan"), 4], [x, y, 7], "all", None,
            [12, 9, 10, 10], [12, 9, 10, 10], [12, 9, 10, 10],
        )  # fmt: skip


def coco_file(pen: Pen, letter: str) -> dict[str, Any]:
    images = [
        {"id": pen.one(k, str(k), float(k), 0, None, "x"), "file_name": f"{letter}{k}.png",
         "width": pen.one(SIZE[0], str(SIZE[0]), 0, None, 640), "height": pen.one(SIZE[1], "", SIZE[1] * 1.0)}
        for k in range(4)
    ]  # fmt: skip
    categories = [{"id": 1, "name": "cat"}, {"id": pen.one(2, "2", 1), "name": pen.one("dog", " Dog", 7, None)}]
    categories += pen.one([], [{"id": 3, "name": "CAT"}], [{"id": 1, "name": "cat"}], [5])
    annotations = []
    for number in range(int(pen.rng.integers(4, 14))):
        entry = {
            "id": pen.one(number, 0, None), "image_id": pen.one(number % 4, str(number % 4), 99, [1]),
            "category_id": pen.one(1 + number % 2, "1", 3, 8, None), "bbox": pen.box(),
            "area": pen.one(50, None, "50", 0, 1e12, "big"), "iscrowd": pen.one(0, 1, "0", None, "1", True, "x"),
            "ignore": pen.one(0, 1, "no"),
        }  # fmt: skip
        annotations += [entry] * pen.one(1, 2)
    return {"images": images, "categories": categories, "annotations": annotations}


def coco(pen: Pen, root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(coco_file(pen, split[0])))
        for k in range(4):
            drawn.image(root / split / f"{split[0]}{k}.png", SIZE, k)


def _size(width: int, height: int) -> str:
    return f"<width>{width}</width><height>{height}</height>"


def voc(pen: Pen, root: Path) -> None:
    annotations = {}
    for k in range(8):
        boxes = []
        for _ in range(int(pen.rng.integers(0, 5))):
            box = pen.box()
            if not isinstance(box, list) or len(box) < 4 or None in box:
                box = [pen.one(3, "", "x"), 3, 9, 9]
            else:
                x, y, w, h = map(float, box)
                box = [x + pen.one(1, 0), y + 1, x + w, y + h]
            boxes.append((pen.one("cat", "dog", "Dog ", "", "a\u00a0b"), *box))
        text = drawn.xml(
            *boxes, *boxes[: pen.one(0, 1)], difficult=pen.one(0, 1, "true", "Unspecified", "hard"),
            size=pen.one(_size(*SIZE), "", "<width>0</width>", _size(9, 9)),
        )  # fmt: skip
        annotations["tv"[k % 2] + str(k)] = pen.one(text, text.encode("utf-16"), text[:-20])
    drawn.voc(root, annotations, {name: ".png" for name in annotations})
    for seed, name in enumerate(annotations):
        drawn.image(root / f"JPEGImages/{name}.png", SIZE, seed)
    for split in ("train", "val"):
        names = [name for name in annotations if name[0] == split[0]]
        lines = [
            pen.one(name, f"{name}.png", f"{name}  1", f"x/{name}.png", f"{name}\n{name}", "nobody") for name in names
        ]
        drawn.listed(root, split, "\n".join(lines).encode(pen.one("utf-8", "utf-16")))


@pytest.mark.parametrize("layout", ["coco", "folder"])
def test_perfect_detections_have_an_ap_of_100(layout, tmp_path):
    used, faults, sound = 0, 0, 0
    for seed in range(SETS):
        root = tmp_path / str(seed)
        (coco if layout == "coco" else voc)(Pen(seed), root)
        data = drawn.data_of(root, layout, on_error="skip", classes=["cat", "dog"])
        report = check(data)
        text = [str(problem) for problem in report.problems]
        assert all(line.startswith(str(root)) and line.isprintable() for line in text), seed
        faults, sound = faults + len(text), sound + (not text)
        try:
            datasets = preflight(data)
        except UsageError as error:
            assert "holds no " in str(error) and text, seed
            continue
        used += 1
        for dataset in datasets:
            for record in dataset.records:
                limits = [record.width - 1, record.height - 1]
                assert (record.boxes >= 0).all() and (record.boxes <= limits * 2).all(), seed
                assert (record.boxes[:, 2:] > record.boxes[:, :2]).all(), seed
            counts = any(not record.difficult.all() for record in dataset.records)
            assert not counts or drawn.all_found(dataset), seed
    assert used > SETS / 2 and faults > SETS and sound
