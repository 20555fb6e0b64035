"""What is drawn, and COCO's numbers of categories."""

from __future__ import annotations

import numpy as np

from gan_kd.data import coco
from gan_kd.detection.pictures import draw
from gan_kd.detection.results import Results


def test_cocos_classes_have_cocos_numbers():
    numbers = {category["name"]: category["id"] for category in Results(coco.CLASSES).categories}
    assert len(numbers) == 80
    assert (numbers["person"], numbers["stop sign"], numbers["toothbrush"]) == (1, 13, 90)


def test_other_classes_are_numbered_from_one():
    assert [category["id"] for category in Results(["cat", "dog"]).categories] == [1, 2]


def test_boxes_are_drawn_where_they_are():
    image = np.zeros((200, 300, 3), np.uint8)
    picture = draw(image, np.array([[100, 80, 199, 159, 1, 0.9]]), ["cat", "dog"])
    assert not image.any()
    assert picture.shape == image.shape
    colour = picture[159, 150]
    assert colour.any()
    for y, x in ((159, 101), (120, 100), (120, 199), (80, 190)):
        assert (picture[y, x] == colour).all()
    assert not picture[90:150, 110:190].any()
    assert not picture[:, 205:].any() and not picture[165:].any()


def test_text_stays_inside_the_picture():
    """Above the box, below its upper edge where it touches the border, and shifted at the right."""
    image = np.zeros((60, 80, 3), np.uint8)
    whole = draw(image, np.array([[0, 0, 79, 59, 0, 1.0]]), ["a long name"])
    right = draw(image, np.array([[70, 30, 79, 50, 0, 1.0]]), ["Kätzchen"])
    assert (whole == 255).all(axis=2).any() and (right == 255).all(axis=2).any()


def test_the_highest_score_lies_on_top():
    rows = np.array([[10, 30, 60, 60, 0, 0.9], [10, 30, 60, 60, 1, 0.5]])
    image, classes = np.zeros((80, 80, 3), np.uint8), ["a", "b"]
    np.testing.assert_array_equal(draw(image, rows, classes), draw(image, rows[::-1], classes))
    first = draw(image, rows[:1], classes)
    np.testing.assert_array_equal(draw(image, rows, classes)[60, 20], first[60, 20])
