"""The short training with either loader, on drawn images."""

import numpy as np
import pytest

from gan_kd.data import demo
from gan_kd.recipe import load
from gan_kd.training.networks import build_student
from scripts.timings import accuracy


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    demo.draw(root / "VOC2012", 8, 4, seed=0, size=96)
    places = [f"data.root={root}", "data.train=[2012/train]", "data.val=[2012/test]", "data.dataset=voc"]
    return load("demo", [*places, f"data.classes=[{', '.join(demo.CLASSES)}]", "data.size=64", "train.batch_size=4"])


@pytest.mark.parametrize("side", accuracy.SIDES)
def test_a_network_learns_from_either_loader(recipe, side):
    assert 0 <= accuracy.measure(recipe, side, epochs=1) <= 100


def test_both_give_as_many_batches_of_the_same_form(recipe):
    detector = build_student(recipe, demo.CLASSES, "baseline", None).detector
    anchors = detector.head.anchors(detector.extractor.sizes)
    (ours, count), (theirs, other) = (side(recipe, anchors) for side in (accuracy._ours, accuracy._gluoncv))
    assert count == other == 2
    own, other = next(ours(0)), next(theirs(0))
    for mine, rival in zip((own.images, *own.targets), (other.images, *other.targets)):
        assert mine.shape == rival.shape and mine.dtype == rival.dtype == np.float32
