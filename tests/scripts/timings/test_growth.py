"""The points of the growth table, measured in processes, and the model behind it."""

import json

import numpy as np
import pytest

from scripts.timings import growth
from scripts.timings.growth import Setting


def exact(batch, size, classes):
    pixels = batch * size**2
    return {
        "grows": "batch", "batch": batch, "size": size, "classes": classes, "contexts": ["cpu:0"], "workers": None,
        "seconds": 0.05 + pixels * (2e-7 + 3e-9 * classes), "bytes": 3e8 + pixels * (500 + 2 * classes),
    }  # fmt: skip


def test_the_fit_finds_the_terms_of_an_exact_model_and_leaves_other_points_out():
    points = [exact(b, s, c) for b, s, c in ((2, 128, 5), (8, 256, 20), (4, 512, 80), (16, 128, 1))]
    others = [{**points[0], "contexts": ["cpu:0", "cpu:1"], "seconds": 9.0}, {**points[0], "workers": 1, "seconds": 9}]
    fitted = growth.fit(points + others)
    assert fitted["seconds"]["terms"] == pytest.approx([0.05, 2e-7, 3e-9], rel=1e-6)
    assert fitted["bytes"]["terms"] == pytest.approx([3e8, 500, 2], rel=1e-6)
    assert np.abs(fitted["seconds"]["residuals"]).max() < 1e-6 and len(fitted["of"]) == 4


def test_more_devices_give_more_images_less_the_allreduce():
    rows = growth.extrapolate({"seconds": {"terms": [0.0, 1e-7, 0.0]}}, parameter_bytes=10**9)
    alone = 32 * 512**2 * 1e-7
    two = next(row for row in rows if (row["assumed speed"], row["devices"]) == (1, 2))
    assert two["allreduce seconds"] == pytest.approx(0.1)  # 2 * 1/2 * 1 GB at 10 GB/s
    assert two["images/s"] == pytest.approx(64 / (alone + 0.1))
    fast = {row["devices"]: row["efficiency"] for row in rows if row["assumed speed"] == 50}
    assert fast[1] == 1 and fast[8] < fast[2] < 1


def test_points_are_measured(tmp_path, monkeypatch):
    from scripts.timings import evaluation

    monkeypatch.setattr(evaluation, "REAL", tmp_path / "absent")
    monkeypatch.setattr(evaluation, "IMAGES", 8)
    points = [
        Setting("batch", 2, 64, 2),
        Setting("workers", 2, 64, 2, ("cpu:0", "cpu:1"), workers=1),
    ]
    grown = growth.grow(1, points)
    assert json.loads(json.dumps(grown)) == json.loads(json.dumps(grown, allow_nan=False))
    assert [point["grows"] for point in grown["points"]] == ["batch", "workers"]
    for point in grown["points"]:
        assert point["images/s"] == pytest.approx(2 / point["seconds"])
        assert 50e6 < point["bytes"] < 50e9  # of the process, with what other tests left in it
