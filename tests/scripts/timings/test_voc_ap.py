"""The input of the metric's benchmark, and that both metrics say the same of it."""

import numpy as np
import pytest

from scripts.timings import voc_ap


def drawn(images=30):
    return voc_ap.draw(np.random.default_rng(1), images, 40)


def test_the_input_follows_from_the_seed_and_has_what_makes_matching_hard():
    images = drawn()
    for one, other in zip(images, drawn()):
        assert all(np.array_equal(a, b) for a, b in zip(one, other))
    assert all(image.detections.shape == (40, 6) for image in images)
    assert all((np.diff(image.detections[:, 5]) <= 0).all() for image in images)
    assert any(image.difficult.any() for image in images)
    assert len({len(image.boxes) for image in images}) > 3


def test_both_metrics_agree():
    images = drawn(300)  # more than our metric matches at once
    ours = voc_ap.our_map(images)
    assert ours == pytest.approx(voc_ap.gluoncv_map(images), abs=1e-9)
    assert 5 < ours < 95


def test_run_gives_the_ratio_and_both_times(monkeypatch):
    monkeypatch.setattr(voc_ap, "IMAGES", 20)
    (result,) = voc_ap.run(2)
    assert (result.key, result.aim, result.at_least, len(result.ratios)) == ("voc_ap_ratio", 5, True, 2)
    assert result.ratio == pytest.approx(result.details["GluonCV, s"] / result.details["ours, s"], rel=0.9)
    assert result.details["mAPs apart by, %"] < 1e-9
