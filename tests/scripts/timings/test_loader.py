"""The loader's benchmark on a few drawn images: both keys, and figures that fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.timings import loader


def test_both_sizes_on_drawn_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "PHOTOS", tmp_path / "nowhere")
    monkeypatch.setattr(loader, "IMAGES", 4)
    monkeypatch.setattr(loader, "BATCH", 2)
    results = loader.measure(rounds=1)
    assert [(result.key, result.aim) for result in results] == [("loader_ratio_300", 10), ("loader_ratio_512", 6)]
    for result in results:
        assert "4 drawn images" in result.what and len(result.ratios) == 1
        speeds = [result.details[f"{name}, images/s"] for name in ("ours", "GluonCV", "JPEG decoding alone")]
        assert result.ratio == pytest.approx(speeds[0] / speeds[1])
        steps = [value for name, value in result.details.items() if name.endswith("ms an image")]
        assert len(steps) == 5 and all(value > 0 for value in [*speeds, *steps])
        assert any("packed cache" in note for note in result.notes)
