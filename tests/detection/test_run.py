"""Detection as users start it: an image, a folder, a video, and what cannot be read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import cv2
import mxnet as mx
import numpy as np
import pytest
from pycocotools.coco import COCO
from tqdm import tqdm

from gan_kd.__main__ import main as command
from gan_kd.commands.detect import main
from gan_kd.data import demo, images
from gan_kd.data.pixels import ValTransform
from gan_kd.data.sizes import Square
from gan_kd.detection.run import _draw
from gan_kd.detectors.saved import load_detector
from gan_kd.errors import RunError, UsageError

POST_NMS = 7  # detections an image at most: suppression travels with the weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three drawn images."""
    root = tmp_path_factory.mktemp("images") / "drawn"
    demo.draw(root, train=1, test=2, seed=0)
    return root / "JPEGImages"


def start(*arguments):
    command = [sys.executable, "-m", "gan_kd", "detect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def read(out):
    return [json.loads((out / name).read_text()) for name in ("detections.json", "images.json")]


@pytest.fixture(scope="module")
def detector(params):
    return load_detector(params)[0]


def expected(detector, image):
    """Rows class, score, x0, y0, x1, y1 in the image's pixels, calculated by hand."""
    pixels, factors = ValTransform(Square(128))(image)
    ids, scores, boxes = (part[0].asnumpy() for part in detector(mx.nd.array(pixels[None])))
    height, width = image.shape[:2]
    boxes = np.clip(boxes * np.tile(factors, 2), 0, [width - 1, height - 1] * 2)
    return np.concatenate((ids, scores, boxes), axis=1)


def require_equal(results, rows):
    assert len(results) == len(rows) == POST_NMS
    for result, (label, score, x0, y0, x1, y1) in zip(results, rows):
        assert result["category_id"] == label + 1
        assert result["score"] == pytest.approx(score, abs=1e-5)
        assert result["bbox"] == pytest.approx([x0, y0, x1 - x0 + 1, y1 - y0 + 1], abs=0.02)


@pytest.mark.slow
def test_a_folder_with_an_unreadable_image(params, detector, folder, tmp_path):
    mixed, out = tmp_path / "mixed", tmp_path / "out"
    shutil.copytree(folder, mixed)
    names = sorted(file.name for file in mixed.iterdir())
    (mixed / "cut.jpg").write_bytes((mixed / names[0]).read_bytes()[:2000])
    (mixed / "notes.txt").write_text("no image")
    done = start(mixed, "--params", params, "--out", out, "--threshold", 0, "--batch-size", 2, "-j", 1)
    assert done.returncode == 1
    assert "cut.jpg: cannot be decoded" in done.stderr
    assert done.stderr.endswith("error: 1 of 4 images could not be read; the others are done\n")
    assert "Traceback" not in done.stderr
    assert f"3 images, {3 * POST_NMS} detections" in done.stdout
    assert sorted(file.name for file in out.iterdir()) == sorted([*names, "detections.json", "images.json"])

    results, about = read(out)
    assert [image["file_name"] for image in about["images"]] == names
    for image in about["images"]:
        pixels = images.read(mixed / image["file_name"])
        assert (image["height"], image["width"]) == pixels.shape[:2] == images.read(out / image["file_name"]).shape[:2]
        rows = expected(detector, pixels)
        require_equal([result for result in results if result["image_id"] == image["id"]], rows)

    loaded = COCO(str(out / "images.json")).loadRes(str(out / "detections.json"))
    assert len(loaded.anns) == len(results)
    assert [category["name"] for category in loaded.cats.values()] == ["circle", "square", "star", "triangle"]


def test_an_image_with_a_lone_params_file(params, detector, folder, tmp_path, capsys):
    alone = tmp_path / "student.params"
    shutil.copy(params, alone)
    image = min(folder.iterdir())
    out = tmp_path / "new" / "out"
    assert main([str(image), "--params", str(alone), "--out", str(out), "--threshold", "0.2"]) == 0
    results, about = read(out)
    rows = expected(detector, images.read(image))
    assert 0 < (rows[:, 1] >= 0.2).sum() == len(results)
    assert all(result["score"] >= 0.2 for result in results)
    assert len(about["images"]) == 1 and about["annotations"] == []
    assert capsys.readouterr().out.startswith(f"1 images, {len(results)} detections")


@pytest.mark.parametrize("options, disabled", [(["-q"], True), ([], None)])
def test_quiet_shows_no_bar_and_the_last_line(params, folder, tmp_path, monkeypatch, capsys, options, disabled):
    seen = []

    def bar(*arguments, disable, **rest):
        seen.append(disable)
        return tqdm(*arguments, disable=True, **rest)

    monkeypatch.setattr("gan_kd.detection.run.tqdm", bar)
    arguments = ["detect", str(min(folder.iterdir())), "--params", str(params), "--out", str(tmp_path)]
    assert command([*options, *arguments]) == 0
    assert seen == [disabled]
    assert capsys.readouterr().out.startswith("1 images, ")


def test_numbers_in_names_become_image_ids(params, folder, tmp_path):
    numbered = tmp_path / "numbered"
    numbered.mkdir()
    for number, file in zip((139, 285), sorted(folder.iterdir())):
        shutil.copy(file, numbered / f"{number:012}.jpg")
    main([str(numbered), "--params", str(params), "--out", str(tmp_path / "out")])
    assert [image["id"] for image in read(tmp_path / "out")[1]["images"]] == [139, 285]


def test_a_video(params, detector, folder, tmp_path):
    source, out = tmp_path / "clip.avi", tmp_path / "out"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    picture = cv2.imread(str(min(folder.iterdir())))
    for shift in range(5):
        writer.write(cv2.resize(picture[10 * shift :], (96, 64)))
    writer.release()
    assert main([str(source), "--params", str(params), "--out", str(out), "--threshold", "0", "--batch-size", "2"]) == 0

    results, about = read(out)
    assert [(image["file_name"], image["frame"]) for image in about["images"]] == [("clip.avi", k) for k in range(5)]
    video, annotated = cv2.VideoCapture(str(source)), cv2.VideoCapture(str(out / "clip.mp4"))
    for image in about["images"]:
        there, frame = video.read()
        drawn, with_boxes = annotated.read()
        assert there and drawn and with_boxes.shape == (64, 96, 3)
        rows = expected(detector, np.ascontiguousarray(frame[..., ::-1]))
        require_equal([result for result in results if result["image_id"] == image["id"]], rows)
    assert not annotated.read()[0]
    assert annotated.get(cv2.CAP_PROP_FPS) == 10


def test_wrong_input_is_named(params, folder, tmp_path):
    text, empty, image = tmp_path / "notes.txt", tmp_path / "empty", min(folder.iterdir())
    text.write_text("no image")
    empty.mkdir()
    out = tmp_path / "out"
    for source, target, error, message in (
        (tmp_path / "absent.jpg", out, UsageError, "absent.jpg: no such file or folder"),
        (empty, out, UsageError, "empty: the folder holds no image"),
        (text, out, UsageError, "notes.txt: neither an image nor a video"),
        (image, folder, UsageError, "is the folder of the input"),
        (folder, folder / ".", UsageError, "is the folder of the input"),
        (image, text / "out", RunError, "notes.txt/out cannot be made"),
        (image, text, RunError, "notes.txt cannot be made"),
    ):
        with pytest.raises(error, match=message):
            main([str(source), "--params", str(params), "--out", str(target)])
    with pytest.raises(UsageError, match="absent.params: no such file"):
        main([str(image), "--params", str(tmp_path / "absent.params"), "--out", str(out)])


@pytest.mark.parametrize(
    "arguments", [["--threshold", "2"], ["--threshold", "high"], ["--batch-size", "0"], ["-j", "-1"], ["-j", "x"]]
)
def test_wrong_numbers_end_with_the_usage(params, folder, tmp_path, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(folder), "--params", str(params), "--out", str(tmp_path), *arguments])
    assert caught.value.code == 2
    assert f"{arguments[1]} is not a" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "written"), [("a.JPG", "a.JPG"), ("a.jpe", "a.jpe"), ("a.jfif", "a.jfif.png")])
def test_a_picture_has_a_suffix_that_opencv_writes(folder, tmp_path, name, written):
    shutil.copy(min(folder.iterdir()), tmp_path / name)
    (tmp_path / "out").mkdir()
    _draw(tmp_path / name, tmp_path / "out", np.zeros((0, 6)), ["cat"])
    assert [file.name for file in (tmp_path / "out").iterdir()] == [written]
