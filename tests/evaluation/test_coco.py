"""COCO average precision: the same numbers as pycocotools run by hand on the same detections."""

from __future__ import annotations

import contextlib
import io
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gan_kd.errors import RunError, UsageError
from gan_kd.evaluation.coco import SUMMARY, COCOMetric


@pytest.fixture(scope="module")
def annotation_file(shared):
    return shared / "data/coco128/annotations/instances_val2017.json"


@pytest.fixture(scope="module")
def truth(annotation_file):
    return json.loads(annotation_file.read_text())


def class_names(truth):
    return [category["name"] for category in sorted(truth["categories"], key=lambda category: category["id"])]


def detections_of(truth, classes, rng=None):
    """{image id: (K, 6)}: every object once, as it is or (rng) moved, some with another class."""
    names = {category["id"]: category["name"] for category in truth["categories"]}
    rows = {image["id"]: [] for image in truth["images"]}
    for item in truth["annotations"]:
        x, y, w, h = item["bbox"]
        label = classes.index(names[item["category_id"]])
        score = 0.9
        if rng is not None:
            x, y, w, h = np.array([x, y, w, h]) + rng.normal(0, 0.08, 4) * [w, h, w, h]
            label = int(rng.integers(len(classes))) if rng.random() < 0.2 else label
            score = rng.random()
        rows[item["image_id"]].append([x, y, x + w - 1, y + h - 1, label, score])
    return {image: np.array(found, dtype=np.float64).reshape(-1, 6) for image, found in rows.items()}


def measure(annotation_file, classes, detections):
    metric = COCOMetric(annotation_file, classes)
    for image_id, found in detections.items():
        metric.update(image_id, found)
    return metric.result()


def test_what_other_tools_leave_out_or_write_otherwise(tmp_path):
    """Ids of objects from 0 on or none, no area, no iscrowd, image ids as text, names in another case."""
    content = {
        "images": [{"id": name, "file_name": f"{name}.jpg", "width": 99, "height": 99} for name in ("a", "b")],
        "categories": [{"id": 7, "name": "Nut"}, {"id": 9, "name": "bolt"}],
        "annotations": [
            {"id": 0, "image_id": "a", "category_id": 7, "bbox": [10, 10, 40, 40]},
            {"id": 1, "image_id": "b", "category_id": 9, "bbox": [20, 30, 50, 40]},
            {"image_id": "b", "category_id": 7, "bbox": [5, 5, 12, 20]},
            {"image_id": "b", "category_id": 7, "bbox": None},
        ],
    }
    file = tmp_path / "instances_val.json"
    file.write_text(json.dumps(content))
    found = {
        "a": np.array([[10, 10, 49, 49, 1, 0.9]]),
        "b": np.array([[20, 30, 69, 69, 0, 0.8], [5, 5, 16, 24, 1, 0.7]]),
    }
    result = measure(file, ["Bolt", "nut"], found)
    assert result.map == pytest.approx(100) and result.ap == pytest.approx({"Bolt": 100, "nut": 100})


def test_equals_pycocotools_whatever_the_order_of_the_classes(annotation_file, truth):
    classes = class_names(truth)[::-1]
    detections = detections_of(truth, classes, np.random.default_rng(0))
    result = measure(annotation_file, classes, detections)

    ids = {category["name"]: category["id"] for category in truth["categories"]}
    entries = [
        {
            "image_id": image,
            "category_id": ids[classes[int(c)]],
            "bbox": [a, b, x - a + 1, y - b + 1],
            "score": score,
        }
        for image, found in detections.items()
        for a, b, x, y, c, score in found.tolist()
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(annotation_file))
        expected = COCOeval(coco, coco.loadRes(entries), "bbox")
        expected.evaluate()
        expected.accumulate()
        expected.summarize()
    assert [result.summary[name] for name in SUMMARY] == pytest.approx(100 * expected.stats, abs=1e-9)
    assert result.map == result.summary["AP"]
    assert 10 < result.map < 90
    for k, category in enumerate(expected.params.catIds):
        name = coco.cats[category]["name"]
        precision = expected.eval["precision"][:, :, k, 0, 2]
        if (precision > -1).any():
            assert result.ap[name] == pytest.approx(100 * precision[precision > -1].mean(), abs=1e-9)
        else:
            assert math.isnan(result.ap[name])


def test_perfect_detections(annotation_file, truth):
    classes = class_names(truth)
    result = measure(annotation_file, classes, detections_of(truth, classes))
    assert result.map == pytest.approx(100)
    assert result.summary["AP75"] == pytest.approx(100)
    assert {round(value, 6) for value in result.ap.values() if not math.isnan(value)} == {100.0}


@pytest.mark.parametrize("crowd", [1, 0])
def test_detections_on_a_crowd_are_neither_hits_nor_false(truth, tmp_path, crowd):
    classes = class_names(truth)
    region = max(truth["annotations"], key=lambda entry: entry["area"])
    entries = [{**entry, "iscrowd": crowd * (entry is region)} for entry in truth["annotations"]]
    annotations = tmp_path / "instances.json"
    annotations.write_text(json.dumps({**truth, "annotations": entries}))
    detections = detections_of(truth, classes)
    name = next(entry["name"] for entry in truth["categories"] if entry["id"] == region["category_id"])
    x, y, w, h = region["bbox"]
    quarters = [
        [x + i * w / 2, y + j * h / 2, x + (i + 1) * w / 2 - 1, y + (j + 1) * h / 2 - 1] for i, j in np.ndindex(2, 2)
    ]
    rows = [[*box, classes.index(name), 0.95] for box in quarters]
    detections[region["image_id"]] = np.concatenate([detections[region["image_id"]], rows])
    result = measure(annotations, classes, detections)
    assert (result.ap[name] == pytest.approx(100)) is bool(crowd)
    assert result.summary["AP"] == pytest.approx(100) or not crowd


def test_only_the_images_given_count(annotation_file, truth):
    classes = class_names(truth)
    detections = detections_of(truth, classes)
    half = dict(list(detections.items())[:64])
    assert measure(annotation_file, classes, half).map == pytest.approx(100)
    empty = {image: np.zeros((0, 6)) for image in detections}
    assert measure(annotation_file, classes, {**empty, **half}).map < 90


def test_no_detection_at_all(annotation_file, truth, capsys):
    classes = class_names(truth)
    result = measure(annotation_file, classes, {image["id"]: np.zeros((0, 6)) for image in truth["images"]})
    assert result.map == 0
    assert capsys.readouterr().out == ""


def test_a_part_of_the_classes(annotation_file, truth):
    classes = ["person", "dog"]
    everything = class_names(truth)
    kept = [everything.index(name) for name in classes]
    detections = {
        image: np.array([[*row[:4], kept.index(row[4]), row[5]] for row in rows if row[4] in kept])
        for image, rows in detections_of(truth, everything).items()
    }
    result = measure(annotation_file, classes, detections)
    assert list(result.ap) == classes
    assert result.map == pytest.approx(100)


def test_wrong_input(annotation_file, tmp_path):
    with pytest.raises(UsageError, match="no category is named unicorn"):
        COCOMetric(annotation_file, ["person", "unicorn"])
    for content in ("{", "[]", '{"images": []}'):
        broken = tmp_path / "broken.json"
        broken.write_text(content)
        with pytest.raises(UsageError, match="broken.json"):
            COCOMetric(broken, ["person"])
    with pytest.raises(UsageError, match="absent.json"):
        COCOMetric(tmp_path / "absent.json", ["person"])
    metric = COCOMetric(annotation_file, ["person"])
    with pytest.raises(RunError, match="image 139 hold nan"):
        metric.update(139, np.array([[0, 0, 5, np.nan, 0, 0.5]]))
    with pytest.raises(ValueError, match="image 7 is not"):
        metric.update(7, np.zeros((0, 6)))
