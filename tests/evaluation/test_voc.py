"""VOC average precision: worked by hand, and against GluonCV's metrics."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from gan_kd.errors import RunError
from gan_kd.evaluation.voc import VOCMetric, box_iou

ANIMALS = ["cat", "cow", "dog", "horse", "sheep"]


def measure(images, classes=("cat",), **options):
    """Result for a list of (detections, boxes, labels, difficult)."""
    metric = VOCMetric(classes, **options)
    for image in images:
        metric.update(*image)
    return metric.result()


def row_of_objects(count, difficult=()):
    """count objects of 10 x 10 pixels in a row, 100 pixels apart: boxes, labels, difficult."""
    boxes = np.array([[100 * i, 0, 100 * i + 9, 9] for i in range(count)], dtype=np.float32)
    return boxes, np.zeros(count, int), np.isin(np.arange(count), difficult)


def on_object(index, score):
    return [100 * index, 0, 100 * index + 9, 9, 0, score]


NOWHERE = 50


def off_objects(score):
    return [NOWHERE, 50, NOWHERE + 9, 59, 0, score]


def test_hit_false_alarm_hit_of_three_objects():
    # Scores fall: hit, false alarm, hit; one of three objects is missed.
    #   precision 1/1, 1/2, 2/3; recall 1/3, 1/3, 2/3
    # 11 points: recall 0, .1, .2, .3 -> 1; .4, .5, .6 -> 2/3; .7 .. 1 -> 0: (4 + 3 * 2/3) / 11 = 6/11
    # area: 1/3 * 1 + 1/3 * 2/3 = 5/9
    image = (np.array([on_object(0, 0.9), off_objects(0.8), on_object(1, 0.7)]), *row_of_objects(3))
    assert measure([image]).ap["cat"] == pytest.approx(100 * 6 / 11)
    assert measure([image], points11=False).ap["cat"] == pytest.approx(100 * 5 / 9)


def test_second_detection_of_an_object_is_a_false_alarm():
    # hit, duplicate, hit of two objects: precision 1, 1/2, 2/3; recall 1/2, 1/2, 1
    # 11 points: 0 .. .5 -> 1 (six), .6 .. 1 -> 2/3 (five): (6 + 10/3) / 11; area: 1/2 + 1/2 * 2/3 = 5/6
    image = (np.array([on_object(0, 0.9), on_object(0, 0.8), on_object(1, 0.7)]), *row_of_objects(2))
    assert measure([image]).ap["cat"] == pytest.approx(100 * (6 + 10 / 3) / 11)
    assert measure([image], points11=False).ap["cat"] == pytest.approx(100 * 5 / 6)


def test_the_higher_score_takes_the_object_wherever_it_stands_in_the_list():
    better_last = np.array([on_object(0, 0.2), on_object(0, 0.9)])
    # 0.9 is the hit, 0.2 the false alarm behind it: AP 1. In order of the list it would be the same hit with
    # score 0.2 behind a false alarm: AP 1/2.
    assert measure([(better_last, *row_of_objects(1))], points11=False).ap["cat"] == pytest.approx(100)


def test_difficult_object_counts_neither_way():
    # Object 1 is difficult: its two detections count neither as hits nor as false alarms, and it is not among
    # the objects to find. What is left: false alarm, hit of one object: precision 0, 1/2; recall 0, 1.
    image = (
        np.array([on_object(1, 0.95), on_object(1, 0.9), off_objects(0.8), on_object(0, 0.7)]),
        *row_of_objects(2, difficult=[1]),
    )
    assert measure([image]).ap["cat"] == pytest.approx(50)
    assert measure([image], points11=False).ap["cat"] == pytest.approx(50)


def test_a_class_with_only_difficult_objects_has_no_ap():
    result = measure([(np.array([on_object(0, 0.9)]), *row_of_objects(1, difficult=[0]))])
    assert math.isnan(result.ap["cat"]) and math.isnan(result.map)


def test_best_overlap_counts_even_if_it_is_taken():
    # Both detections overlap object 0 most. The devkit does not give the second to the nearby object 1.
    boxes = np.array([[0, 0, 9, 9], [0, 3, 9, 12]])
    detections = np.array([[0, 0, 9, 9, 0, 0.9], [0, 1, 9, 10, 0, 0.8]])
    assert box_iou(detections[1, :4], boxes) == pytest.approx([90 / 110, 80 / 120])
    result = measure([(detections, boxes, np.zeros(2, int), np.zeros(2, bool))], points11=False)
    assert result.ap["cat"] == pytest.approx(50)


def test_pixel_convention_decides_at_the_threshold():
    # 10 x 10 and 10 x 20 pixels: IoU 100 / 200 = 0.5 with the last pixel included, 81 / 171 < 0.5 without.
    detection = np.array([[0, 0, 9, 9, 0, 0.9]])
    truth = (np.array([[0, 0, 9, 19]]), np.zeros(1, int), np.zeros(1, bool))
    assert measure([(detection, *truth)]).map == pytest.approx(100)
    assert measure([(detection, *truth)], iou=0.51).map == 0


def test_a_detection_of_another_class_finds_nothing():
    boxes, labels, difficult = row_of_objects(1)
    detection = np.array([[0, 0, 9, 9, 1, 0.9]])
    result = measure([(detection, boxes, labels, difficult)], classes=("cat", "dog"))
    assert result.ap["cat"] == 0
    assert math.isnan(result.ap["dog"])  # no dog anywhere: left out of the mean
    assert result.map == 0


def test_equal_scores_count_in_their_order():
    hit_first = np.array([on_object(0, 0.5), off_objects(0.5)])
    assert measure([(hit_first, *row_of_objects(1))], points11=False).map == pytest.approx(100)
    assert measure([(hit_first[::-1], *row_of_objects(1))], points11=False).map == pytest.approx(50)
    # and over images: the image that came first goes first
    images = [(hit_first[:1], *row_of_objects(1)), (hit_first[1:], *row_of_objects(0))]
    assert measure(images, points11=False).map == pytest.approx(100)
    assert measure(images[::-1], points11=False).map == pytest.approx(50)


def test_nothing_found_and_nothing_given():
    nothing = np.zeros((0, 6))
    assert measure([(nothing, *row_of_objects(2))]).map == 0
    assert math.isnan(measure([(nothing, *row_of_objects(0))]).map)
    assert math.isnan(measure([]).map)


def test_padding_rows_are_left_out():
    padded = np.array([on_object(0, 0.9), [-1, -1, -1, -1, -1, -1]])
    assert measure([(padded, *row_of_objects(1))]).map == pytest.approx(100)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", range(6))
def test_detections_that_are_not_finite_are_refused(value, column):
    detection = np.array([on_object(0, 0.9)], dtype=np.float64)
    detection[0, column] = value
    with pytest.raises(RunError, match="2008_000001 hold nan or infinite"):
        VOCMetric(["cat"]).update(detection, *row_of_objects(1), image="2008_000001")


def gluoncv_result(images, classes, points11):
    from gluoncv.utils.metrics.voc_detection import VOC07MApMetric, VOCMApMetric

    metric = (VOC07MApMetric if points11 else VOCMApMetric)(iou_thresh=0.5, class_names=list(classes))
    for detections, boxes, labels, difficult in images:
        metric.update(
            pred_bboxes=[detections[None, :, :4]],
            pred_labels=[detections[None, :, 4]],
            pred_scores=[detections[None, :, 5]],
            gt_bboxes=[boxes[None]],
            gt_labels=[labels[None]],
            gt_difficults=[difficult[None]],
        )
    return 100 * np.array(metric.get()[1])


def perturbed(rng, boxes, labels, num_classes):
    """Detections: objects moved, some twice, some with another class, some from nowhere; no equal scores."""
    picked = rng.integers(0, len(boxes), 2 * len(boxes)) if len(boxes) else np.zeros(0, int)
    size = np.ptp(boxes[picked].reshape(-1, 2, 2), axis=1)
    moved = boxes[picked] + rng.normal(0, 0.12, (len(picked), 4)) * np.tile(size, 2)
    wrong = rng.random(len(picked)) < 0.2
    classes = np.where(wrong, rng.integers(0, num_classes, len(picked)), labels[picked])
    corner = rng.uniform(0, 200, (3, 2))
    noise = np.hstack((corner, corner + rng.uniform(5, 100, (3, 2)), rng.integers(0, num_classes, (3, 1))))
    rows = np.vstack((np.column_stack((moved, classes)), noise))
    return np.column_stack((rows, rng.random(len(rows))))


def assert_like_gluoncv(images, classes):
    for points11 in (True, False):
        ours = measure(images, classes, points11=points11)
        expected = gluoncv_result(images, classes, points11)
        np.testing.assert_allclose([*ours.ap.values(), ours.map], expected, rtol=0, atol=1e-9)
        assert 5 < ours.map < 95  # neither all wrong nor all right, or the comparison would show little


@pytest.mark.parametrize("seed", range(5))
def test_equals_gluoncv_on_random_objects(seed):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(60):
        count = rng.integers(0, 8)
        corner = rng.uniform(0, 150, (count, 2))
        boxes = np.hstack((corner, corner + rng.uniform(3, 90, (count, 2))))
        labels = rng.integers(0, 3, count)
        images.append((perturbed(rng, boxes, labels, 3), boxes, labels, rng.random(count) < 0.2))
    assert_like_gluoncv(images, ["a", "b", "c", "never there"])


def test_equals_gluoncv_where_recall_falls_on_a_point():
    # 10 objects: recall is a multiple of 0.1 throughout, so rounding of the eleven points shows.
    for found in range(1, 11):
        detections = np.array([on_object(i, 0.9 - 0.01 * i) for i in range(found)] + [off_objects(0.1)])
        images = [(detections, *row_of_objects(10))]
        ours = measure(images).ap["cat"]
        assert ours == pytest.approx(gluoncv_result(images, ["cat"], True)[0], abs=1e-9), found


def read_animals(folder, limit):
    """(boxes, labels, difficult) of voc12-animals, read here so that the package's reader takes no part."""
    names = (folder / "ImageSets/Main/val.txt").read_text().split()[:limit]
    for name in names:
        boxes, labels, difficult = [], [], []
        for item in ElementTree.parse(folder / f"Annotations/{name}.xml").iter("object"):
            if item.findtext("name") in ANIMALS:
                box = item.find("bndbox")
                boxes.append([float(box.findtext(key)) - 1 for key in ("xmin", "ymin", "xmax", "ymax")])
                labels.append(ANIMALS.index(item.findtext("name")))
                difficult.append(item.findtext("difficult") == "1")
        yield np.array(boxes).reshape(-1, 4), np.array(labels, int), np.array(difficult, bool)


def test_equals_gluoncv_on_real_ground_truth(shared):
    rng = np.random.default_rng(1)
    images = [
        (perturbed(rng, boxes, labels, len(ANIMALS)), boxes, labels, difficult)
        for boxes, labels, difficult in read_animals(shared / "data/voc12-animals/VOC2012", 600)
    ]
    assert sum(image[3].sum() for image in images) > 20  # difficult objects take part
    assert_like_gluoncv(images, ANIMALS)
