"""The export's record, its page, its mAP, and the command."""

from __future__ import annotations

import json
import subprocess
import sys

import mxnet as mx
import pytest

from gan_kd.commands.export import main
from gan_kd.data.dataset import open_split
from gan_kd.errors import RunError, UsageError
from gan_kd.evaluation.evaluate import evaluate
from gan_kd.export.run import export
from gan_kd.gluon import macs
from gan_kd.recipe import from_dict

STUDENT = "distilled mobilenet0.25"
NAMES = [STUDENT, STUDENT, f"{STUDENT}, ONNX", f"{STUDENT}, ONNX without suppression", f"{STUDENT}, int8"]


def recipe(root, classes="annotations"):
    data = {"dataset": "demo", "root": str(root), "train": ["train"], "val": ["test"], "classes": classes, "size": 128}
    return from_dict(
        {
            "name": "few",
            "data": {**data, "demo": {"train": 12, "test": 10, "seed": 1}, "unknown_classes": "ignore"},
            "teacher": {"backbone": "mobilenet0.5", "init": "random"},
            "student": {"backbone": "mobilenet0.25", "init": "random"},
            "stages": {"plain": {"trains": "baseline", "epochs": 1}},
            "train": {"num_workers": 0},
        }
    )


def test_the_record_says_what_was_written(exported, detector):
    record = exported.record
    assert json.loads((exported.out / "export.json").read_text()) == record
    assert [form["name"] for form in record["forms"]] == NAMES
    counted = macs.count(detector, (1, 3, 128, 128))
    written = {"export.json", "export.md"}
    for form in record["forms"][1:]:
        assert (form["parameters"], form["macs"]) == counted
        assert form["bytes"] == sum((exported.out / file).stat().st_size for file in form["files"])
        assert form["images_per_s"] > 0 and form["speed_ratio"][1] > 0 and form["map"] is None
        written.update(form["files"])
    assert {file.name for file in exported.out.iterdir()} == written
    assert record["forms"][1]["speed_ratio"] == [1, 1, 1]


def test_the_page_has_every_form(exported):
    page = (exported.out / "export.md").read_text()
    assert all(f"| {name} | " in page for name in NAMES)
    assert "mobilenet0.25, adapters and the head of mobilenet0.5" in page
    assert "Input: data (N, 3, 128, 128) float32, RGB" in page


def test_map_is_that_of_the_evaluation(params, detector, tmp_path):
    few = recipe(tmp_path / "drawn")
    record = export(params, tmp_path / "out", ["onnx"], recipe=few, rounds=1)
    expected = evaluate(detector, open_split(few.data, "val"), [mx.cpu()], few.eval, 0).map
    assert record["forms"][0]["map"] == expected
    assert record["forms"][1]["map"] == pytest.approx(expected, abs=1e-3)
    assert record["forms"][2]["map"] is None
    assert "on 10 images" in record["checks"][0] and "of the validation split" in record["checks"][0]
    written = {"ssd_128_mobilenet0.25.onnx", "ssd_128_mobilenet0.25-nms.onnx", "export.json", "export.md"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == written


def test_other_classes_are_refused(params, tmp_path):
    with pytest.raises(UsageError, match="trained on the classes circle, .* but the data has circle, square"):
        export(params, tmp_path / "out", recipe=recipe(tmp_path / "drawn", ["circle", "square"]))


def test_a_folder_that_cannot_be_made(params, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file/out: no file can be written there"):
        export(params, tmp_path / "file/out", ["mxnet"])


def test_an_unreadable_image_is_named(params, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UsageError, match="cut.jpg: is not an image"):
        export(params, tmp_path / "out", ["onnx"], images=[tmp_path])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command(params, tmp_path):
    """Without images of the user's it compares on drawn ones."""
    command = [sys.executable, "-m", "gan_kd", "export", "--params", str(params), "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "ONNX against MXNet on 50 images: scores differ by" in done.stdout and "images: drawn" in done.stdout
    assert all(line in done.stdout for line in NAMES[1:4])
    record = json.loads((tmp_path / "out/export.json").read_text())
    assert record["command"] == f"python -m gan_kd export --params {params} --out out"
    assert done.stderr == ""


def test_wrong_arguments(params, tmp_path):
    out = ["--out", str(tmp_path)]
    with pytest.raises(UsageError, match="absent.params: no such file"):
        main(["--params", "absent.params", *out])
    with pytest.raises(UsageError, match="absent.params: no such file"):
        main(["--params", str(params), "--teacher", "absent.params", *out])
    with pytest.raises(UsageError, match="--dataset-root belongs to --recipe"):
        main(["--params", str(params), "--dataset-root", "data", *out])
    with pytest.raises(UsageError, match="--calibrate is for int8"):
        main(["--params", str(params), "--calibrate", str(tmp_path), *out])
    with pytest.raises(SystemExit) as caught:
        main(["--params", str(params), "--format", "mxnet,tflite", *out])
    assert caught.value.code == 2
