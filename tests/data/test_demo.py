"""The drawn set: the same bytes from a seed, sound annotations, nothing half-drawn, nobody's files lost."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gan_kd.data import demo
from gan_kd.data.check import check
from gan_kd.data.demo import CLASSES, Shape, draw, picture
from gan_kd.errors import RunError, UsageError
from gan_kd.recipe import from_dict

TRAIN, TEST, SEED = 40, 16, 233


def content(root):
    """sha256 of every file by its place."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "demo"
    draw(root, TRAIN, TEST, SEED)
    return root


@pytest.fixture(scope="module")
def report(drawn):
    data = {
        "dataset": "demo",
        "root": str(drawn),
        "train": ["train"],
        "val": ["test"],
        "classes": "annotations",
        "demo": {"train": TRAIN, "test": TEST, "seed": SEED},
    }
    stages = {"plain": {"trains": "baseline", "epochs": 1}}
    return check(from_dict({"name": "drawn", "data": data, "stages": stages}).data)


def test_another_process_draws_the_same_bytes(drawn, tmp_path):
    program = (
        "import sys; from pathlib import Path; from gan_kd.data.demo import draw\n"
        f"draw(Path(sys.argv[1]), {TRAIN}, {TEST}, {SEED})"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, tmp_path / "x"], check=True, cwd=root)
    first = content(drawn)
    assert len(first) == 2 * (TRAIN + TEST) + 4  # two lists, the class names, the stamp
    assert content(tmp_path / "x") == first


def test_the_check_finds_nothing(report):
    assert report.problems == []
    train, test = report.scans
    assert (len(train.dataset), len(test.dataset)) == (TRAIN, TEST)
    assert train.dataset.classes == CLASSES
    for found in (train, test):
        assert set(found.counts()) == set(CLASSES)


def test_flags_and_occlusion(report, drawn):
    records = report.scans[0].dataset.records
    difficult = np.concatenate([record.difficult for record in records])
    assert 0.01 < difficult.mean() < 0.3
    assert max(len(record.labels) for record in records) > 1
    text = "".join(path.read_text() for path in drawn.glob("Annotations/*.xml"))
    assert "<truncated>1</truncated>" in text and "<occluded>1</occluded>" in text


def test_the_box_is_that_of_what_is_in_sight():
    owner = np.full((200, 300), -1, np.int8)  # the canvas has two pixels for one of the picture
    owner[60:140, 100:180] = 0
    whole = demo._label(owner, 0, "square", 80.0 * 80, False)
    assert whole == Shape("square", (51, 31, 90, 70), truncated=False, occluded=False, difficult=False)
    owner[60:140, 136:180] = 1  # hides more than half
    hidden = demo._label(owner, 0, "square", 80.0 * 80, False)
    assert hidden == Shape("square", (51, 31, 68, 70), truncated=False, occluded=True, difficult=True)


def test_pictures_follow_from_the_generator_alone():
    image, shapes = picture(np.random.default_rng(5), 96)
    assert image.dtype == np.uint8 and max(image.shape[:2]) == 96 and image.shape[2] == 3
    again, same = picture(np.random.default_rng(5), 96)
    np.testing.assert_array_equal(image, again)
    assert shapes == same


def test_a_larger_set_begins_with_the_smaller(tmp_path):
    draw(tmp_path / "small", 2, 1, 7, size=64)
    draw(tmp_path / "large", 3, 2, 7, size=64)
    small, large = content(tmp_path / "small"), content(tmp_path / "large")
    pictures = [name for name in small if name.startswith(("JPEGImages", "Annotations"))]
    assert len(pictures) == 6
    assert all(large[name] == small[name] for name in pictures)


def test_a_set_is_kept_or_replaced_by_its_settings(tmp_path):
    root = tmp_path / "deep/demo"
    draw(root, 2, 1, 7, size=64)
    first, time = content(root), (root / demo.STAMP).stat().st_mtime_ns
    draw(root, 2, 1, 7, size=64)
    assert (root / demo.STAMP).stat().st_mtime_ns == time
    draw(root, 2, 1, 8, size=64)
    second = content(root)
    assert second.keys() == first.keys()
    assert not {first[name] for name in first if name.endswith(".jpg")} & set(second.values())


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    draw(tmp_path / "old", 2, 1, 7, size=64)
    before, drawing = content(tmp_path / "old"), demo.picture

    def interrupted(rng, size, left=[2]):  # noqa: B006  counts the calls
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return drawing(rng, size)

    monkeypatch.setattr(demo, "picture", interrupted)
    for name in ("new", "old"):
        with pytest.raises(KeyboardInterrupt):
            draw(tmp_path / name, 3, 1, 7, size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert content(tmp_path / "old") == before


def test_files_of_others_are_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for root in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UsageError, match="not a drawn demo set; name an empty or new folder"):
            draw(root, 2, 1, 7)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    draw(tmp_path / "empty", 1, 1, 7, size=64)
    assert (tmp_path / "empty" / demo.STAMP).exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file/demo: the demo set cannot be drawn there .File exists"):
        draw(tmp_path / "file/demo", 1, 1, 7, size=64)
