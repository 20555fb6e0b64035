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

from gan_kd.data.dataset import open_split
from gan_kd.errors import RunError
from gan_kd.evaluation.coco import SUMMARY, COCOMetric
from gan_kd.recipe import from_dict


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


@pytest.fixture(scope="module")
def dataset(shared, truth):
    """The data set as the reader keeps it, with the file's classes in their order."""
    data = {"dataset": "coco", "root": str(shared / "data/coco128"), "val": ["val2017"], "classes": class_names(truth)}
    recipe = {"name": "coco128", "data": data, "stages": {"plain": {"trains": "baseline", "epochs": 1}}}
    return open_split(from_dict(recipe).data, "val")


def measure(records, classes, detections):
    """The metric of records; detections: by image id."""
    metric = COCOMetric(classes)
    for record in records:
        found = detections[int(record.id)]
        metric.update(found, record.boxes, record.labels, record.difficult, record.areas, f"image {record.id}")
    return metric.result()


def perfect(records):
    """{image id: (K, 6)}: every object of the records once."""
    return {
        int(record.id): np.column_stack((record.boxes, record.labels, np.full(len(record.labels), 0.9)))
        for record in records
    }


def in_order(records, classes, wanted):
    """The records with their labels as places in another class list; objects of other classes are left out."""
    places = np.array([wanted.index(name) if name in wanted else -1 for name in classes])
    moved = []
    for record in records:
        kept = places[record.labels] >= 0
        areas = None if record.areas is None else record.areas[kept]
        boxes, difficult = record.boxes[kept], record.difficult[kept]
        labels = places[record.labels][kept]
        moved.append(record._replace(labels=labels, boxes=boxes, difficult=difficult, areas=areas))
    return moved


def test_equals_pycocotools_whatever_the_order_of_the_classes(annotation_file, truth, dataset):
    classes = class_names(truth)[::-1]
    detections = detections_of(truth, classes, np.random.default_rng(0))
    result = measure(in_order(dataset.records, dataset.classes, classes), classes, detections)

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


def test_perfect_detections(dataset):
    result = measure(dataset.records, dataset.classes, perfect(dataset.records))
    assert result.map == pytest.approx(100)
    assert result.summary["AP75"] == pytest.approx(100)
    assert {round(value, 6) for value in result.ap.values() if not math.isnan(value)} == {100.0}


@pytest.mark.parametrize("crowd", [True, False])
def test_detections_on_a_crowd_are_neither_hits_nor_false(dataset, crowd):
    detections = perfect(dataset.records)
    sizes = [0 if record.areas is None else record.areas.max() for record in dataset.records]
    place = int(np.argmax(sizes))
    record = dataset.records[place]
    largest = int(record.areas.argmax())
    difficult = record.difficult.copy()
    difficult[largest] = crowd
    records = [*dataset.records]
    records[place] = record._replace(difficult=difficult)
    x0, y0, x1, y1 = record.boxes[largest]
    w, h = (x1 - x0) / 2, (y1 - y0) / 2
    quarters = [[x0 + i * w, y0 + j * h, x0 + (i + 1) * w, y0 + (j + 1) * h] for i, j in np.ndindex(2, 2)]
    rows = [[*box, record.labels[largest], 0.95] for box in quarters]
    detections[int(record.id)] = np.concatenate([detections[int(record.id)], rows])
    result = measure(records, dataset.classes, detections)
    name = dataset.classes[record.labels[largest]]
    assert (result.ap[name] == pytest.approx(100)) is crowd
    assert result.summary["AP"] == pytest.approx(100) or not crowd


def test_only_the_images_given_count(dataset):
    detections = perfect(dataset.records)
    assert measure(dataset.records[:64], dataset.classes, detections).map == pytest.approx(100)
    half = {image: found if index < 64 else found[:0] for index, (image, found) in enumerate(detections.items())}
    assert measure(dataset.records, dataset.classes, half).map < 90


def test_no_detection_at_all(dataset, capsys):
    nothing = {image: found[:0] for image, found in perfect(dataset.records).items()}
    assert measure(dataset.records, dataset.classes, nothing).map == 0
    assert capsys.readouterr().out == ""


def test_nothing_to_find_is_nan():
    metric = COCOMetric(["cat"])
    metric.update(np.zeros((0, 6)), np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
    assert math.isnan(metric.result().map) and math.isnan(metric.result().ap["cat"])


def test_a_part_of_the_classes(dataset):
    records = in_order(dataset.records, dataset.classes, ["person", "dog"])
    result = measure(records, ["person", "dog"], perfect(records))
    assert list(result.ap) == ["person", "dog"]
    assert result.map == pytest.approx(100)


def test_the_size_of_an_object_is_that_of_its_outline():
    """A box of 33 x 33 px is medium, and small where the outline within it is."""
    box, label, crowd = np.array([[10.0, 10, 42, 42]]), np.zeros(1, int), np.zeros(1, bool)
    found = np.array([[10, 10, 42, 42, 0, 0.9]])
    for areas, size, other in ((None, "APm", "APs"), (np.array([1000.0]), "APs", "APm")):
        metric = COCOMetric(["cat"])
        metric.update(found, box, label, crowd, areas)
        summary = metric.result().summary
        assert summary[size] == pytest.approx(100) and math.isnan(summary[other])


def test_detections_that_are_not_finite_are_refused():
    metric, nothing = COCOMetric(["person"]), np.zeros(0)
    with pytest.raises(RunError, match="image 139 hold nan"):
        metric.update(np.array([[0, 0, 5, np.nan, 0, 0.5]]), nothing, nothing, nothing, image="image 139")
