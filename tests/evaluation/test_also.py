"""Further measures of the same detections: worked by hand, and against a count in NumPy that shares no code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from gan_kd.data.dataset import DetectionDataset
from gan_kd.data.record import Record
from gan_kd.errors import RunError
from gan_kd.evaluation.also import measures


def data_set(objects, classes=("cat",)):
    """A data set of images with objects (boxes, labels, difficult)."""
    records = [
        Record(str(index), Path(f"{index}.jpg"), 500, 500, np.array(boxes, np.float32).reshape(-1, 4),
               np.array(labels, np.int32), np.array(difficult, bool))
        for index, (boxes, labels, difficult) in enumerate(objects)
    ]  # fmt: skip
    return DetectionDataset(list(classes), records)


def test_by_hand():
    # Two objects of 10 x 10 pixels, and a difficult one. By falling score: on the difficult one, which counts
    # nowhere; 10 x 6 pixels of the first, IoU 0.60; the second as it is.
    # From 0.50 to 0.60, three thresholds: hit, hit: AP 1.
    # From 0.65 to 0.95, seven: false alarm, hit of two objects: precision 0, 1/2; recall 0, 1/2.
    #   area: 1/2 * 1/2 = 1/4. ap: (3 * 1 + 7 * 1/4) / 10 = 0.475
    boxes = [[0, 0, 9, 9], [100, 0, 109, 9], [200, 0, 209, 9]]
    dataset = data_set([(boxes, [0, 0, 0], [False, False, True])])
    found = np.array([[200, 0, 209, 9, 0, 0.9], [0, 0, 9, 5, 0, 0.8], [100, 0, 109, 9, 0, 0.7]], np.float32)
    assert measures(dataset, [found]) == pytest.approx({"voc07": 100, "voc10": 100, "ap": 47.5, "ap75": 25})


def test_the_rules_differ():
    # Hit, false alarm, hit of three objects: see test_voc; every hit is exact, so that the threshold changes nothing.
    boxes = [[0, 0, 9, 9], [100, 0, 109, 9], [200, 0, 209, 9]]
    dataset = data_set([(boxes, [0, 0, 0], [False] * 3)])
    found = np.array([[*boxes[0], 0, 0.9], [50, 50, 59, 59, 0, 0.8], [*boxes[1], 0, 0.7]])
    expected = {"voc07": 100 * 6 / 11, "voc10": 100 * 5 / 9, "ap": 100 * 5 / 9, "ap75": 100 * 5 / 9}
    assert measures(dataset, [found]) == pytest.approx(expected)


def test_nothing_to_find_is_nan():
    found = measures(data_set([([], [], [])]), [np.zeros((0, 6))])
    assert list(found) == ["voc07", "voc10", "ap", "ap75"] and all(math.isnan(value) for value in found.values())


def test_what_is_not_finite_is_refused():
    with pytest.raises(RunError, match="image 0 hold nan"):
        measures(data_set([([], [], [])]), [np.array([[0, 0, 9, 9, 0, np.nan]])])


def plain_ap(objects, detections, label, threshold):
    """AP by the area rule of one class, detection by detection, in [0, 1]; None without an object to find."""
    rows = sorted(
        ((row[5], image, row[:4]) for image, found in enumerate(detections) for row in found if row[4] == label),
        key=lambda row: -row[0],
    )
    total = sum(int(c == label and not d) for _, labels, difficult in objects for c, d in zip(labels, difficult))
    if not total:
        return None
    taken, curve, hits, alarms = set(), [(0.0, 1.0)], 0, 0
    for _, image, (x0, y0, x1, y1) in rows:
        best, at = 0.0, -1
        for index, (box, c) in enumerate(zip(*objects[image][:2])):
            width, height = min(x1, box[2]) - max(x0, box[0]) + 1, min(y1, box[3]) - max(y0, box[1]) + 1
            if c == label and width > 0 and height > 0:
                areas = (x1 - x0 + 1) * (y1 - y0 + 1) + (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                overlap = width * height / (areas - width * height)
                best, at = max((best, at), (overlap, index), key=lambda one: one[0])
        if best >= threshold and objects[image][2][at]:
            continue
        hit = best >= threshold and (image, at) not in taken
        taken.add((image, at) if hit else None)
        hits, alarms = hits + hit, alarms + (not hit)
        curve.append((hits / total, hits / (hits + alarms)))
    recall, precision = np.array(curve).T
    return sum((recall[k] - recall[k - 1]) * precision[k:].max() for k in range(1, len(recall)))


def test_equals_a_plain_count():
    rng = np.random.default_rng(0)
    objects, detections = [], []
    for _ in range(40):
        count = rng.integers(0, 5)
        corner = rng.uniform(0, 300, (count, 2))
        boxes = np.hstack((corner, corner + rng.uniform(20, 120, (count, 2)))).astype(np.float32)
        labels = rng.integers(0, 3, count)
        objects.append((boxes, labels, rng.random(count) < 0.2))
        picked = rng.integers(0, count, 3 * count) if count else np.zeros(0, int)
        moved = boxes[picked] + rng.normal(0, 6, (len(picked), 4))
        wrong = rng.random(len(picked)) < 0.2
        classes = np.where(wrong, rng.integers(0, 4, len(picked)), labels[picked])
        detections.append(np.column_stack((moved, classes, rng.random(len(picked)))))
    found = measures(data_set(objects, ["a", "b", "c", "never there"]), detections)
    maps = []
    for threshold in np.arange(50, 100, 5) / 100:
        aps = [plain_ap(objects, detections, label, threshold) for label in range(4)]
        assert aps[3] is None
        maps.append(np.mean([100 * ap for ap in aps if ap is not None]))
    assert found["voc10"] == pytest.approx(maps[0], abs=1e-9)
    assert found["ap"] == pytest.approx(np.mean(maps), abs=1e-9)
    assert found["ap75"] == pytest.approx(maps[5], abs=1e-9)
    assert 5 < found["ap"] < found["voc10"] - 5 < 90
