"""COCO by the shell: training and scripts/eval_coco.py on real images, against pycocotools called by hand."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gan_kd.commands.evaluate import main
from gan_kd.data.dataset import class_names
from gan_kd.detectors.saved import describe, load_detector, save_detector
from gan_kd.errors import UserError
from gan_kd.recipe import load
from gan_kd.training.networks import build_student

ROOT = Path(__file__).resolve().parents[2]
SIZE = 128
NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@pytest.fixture(scope="module")
def data(shared, tmp_path_factory):
    """The val images of coco128 as train2017 and val2017: every 10th object is a crowd, every 16th image has none."""
    real, root = shared / "data/coco128", tmp_path_factory.mktemp("coco")
    content = json.loads((real / "annotations/instances_val2017.json").read_text())
    empty = {image["id"] for image in content["images"][::16]}
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] not in empty]
    for entry in content["annotations"][::10]:
        entry["iscrowd"] = 1
    assert max(entry["category_id"] for entry in content["annotations"]) > len(content["categories"]) == 80
    (root / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (root / split).symlink_to(real / "val2017")
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def start(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=600
    )  # fmt: skip


@pytest.fixture(scope="module")
def params(data, shared, tmp_path_factory):
    """A small network that learnt these images by heart, so that its AP on them is far from 0, trained by the shell."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {
        "student.backbone": "mobilenet0.25",
        "student.init": shared / "weights/mobilenet0.25.params",
        "data.augment": "flip",
        "stages.baseline.epochs": 8,
        "stages.baseline_finetune": "null",
    }
    done = start(
        "-m", "gan_kd", "train", "--recipe", "coco/mobilenet1.0", "--dataset-root", data, "--data-shape", SIZE,
        "--contexts", "cpu:0", "--batch-size", 16, "-j", 1, "--val-interval", 8, "--save-prefix", folder,
        *(f"--set={key}={value}" for key, value in settings.items()), cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = folder / "coco/mobilenet1.0/233"
    report = (run / "report/report.md").read_text()
    assert "**Without distillation: baseline" in report and "Published table 2, MobileNetV1 alone" in report
    return run / "baseline/best.params"


def evaluate(*arguments, cwd):
    return start(ROOT / "scripts/eval_coco.py", "-j", 1, *arguments, cwd=cwd)


def by_hand(params, data, folder):
    """pycocotools' numbers in percent, from a results file that shares nothing with the evaluation but the network."""
    detector, _ = load_detector(params)
    truth = data / "annotations/instances_val2017.json"
    ids = {entry["name"]: entry["id"] for entry in json.loads(truth.read_text())["categories"]}
    entries = []
    for image in json.loads(truth.read_text())["images"]:
        pixels = cv2.cvtColor(cv2.imread(str(data / "val2017" / image["file_name"])), cv2.COLOR_BGR2RGB)
        resized = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        normal = (resized / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        outputs = detector(mx.nd.array(normal.transpose(2, 0, 1)[None], dtype="float32"))
        labels, scores, boxes = (output[0].asnumpy() for output in outputs)
        height, width = pixels.shape[:2]
        for (label,), (score,), box in zip(labels, scores, boxes):
            if label >= 0:
                x0, x1 = np.clip(box[[0, 2]] * width / SIZE, 0, width - 1)
                y0, y1 = np.clip(box[[1, 3]] * height / SIZE, 0, height - 1)
                category, box = ids[detector.head.classes[int(label)]], [x0, y0, x1 - x0 + 1, y1 - y0 + 1]
                entry = {"image_id": image["id"], "category_id": category, "score": float(score)}
                entries.append({**entry, "bbox": [float(value) for value in box]})
    (folder / "results.json").write_text(json.dumps(entries))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        counted = COCOeval(coco, coco.loadRes(str(folder / "results.json")), "bbox")
        counted.evaluate()
        counted.accumulate()
        counted.summarize()
    return 100 * counted.stats


@pytest.mark.slow
def test_the_twelve_numbers_are_those_of_pycocotools(params, data, tmp_path):
    done = evaluate("--params", params, "--json", "out.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    expected = by_hand(params, data, tmp_path)
    assert expected[0] > 5 and expected[8] > expected[6]
    assert list(written["summary"]) == NUMBERS
    assert list(written["summary"].values()) == pytest.approx(expected.tolist(), abs=1e-9)
    assert (written["network"], written["metric"], written["images"]) == ("baseline", "coco", 128)
    shown = [line.split() for line in done.stdout.splitlines()]
    for name, value in written["summary"].items():
        assert [name, f"{value:.2f}"] in shown
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def untrained(data, tmp_path_factory):
    """Random weights at the size of the paper's tables, a set of three images, and the arguments that name both."""
    root = tmp_path_factory.mktemp("three")
    content = json.loads((data / "annotations/instances_val2017.json").read_text())
    content["images"] = content["images"][1:4]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in kept]
    (root / "annotations").mkdir()
    (root / "annotations/instances_val2017.json").write_text(json.dumps(content))
    (root / "annotations/instances_broken2017.json").write_text("{")
    (root / "val2017").symlink_to(data / "val2017")
    recipe = load("coco/mobilenet1.0", ["student.init=random"])
    network = build_student(recipe, class_names(recipe.data), "baseline", None).detector
    save_detector(network, root / "best.params", describe(recipe, "baseline", network))
    named = ["--recipe", "coco/mobilenet1.0", "--params", root / "best.params", "--dataset-root", root]
    return [*map(str, named), "--contexts", "cpu:0"]


def test_the_published_row_stands_beside_the_numbers(untrained, tmp_path):
    done = evaluate(*untrained, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "coco on 3 images, %" in lines
    assert "MobileNetV1: none 21.7, ResNet50 25.4" in lines
    shown = dict(line.rsplit(maxsplit=1) for line in lines if line)
    assert float(shown["AP"]) - float(shown["published"]) == pytest.approx(float(shown["difference"]), abs=0.02)


def test_a_mistake_is_one_line(tmp_path):
    done = evaluate("--params", tmp_path / "absent.params", "--recipe", "coco/mobilenet1.0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "absent.params: no such file" in done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--recipe", "voc/mobilenet1.0"], "eval.metric coco needs data.dataset coco, not voc"),
        (["--recipe", "coco/mobilenet"], "did you mean coco/mobilenet"),
        (["--recipe", "coco/mobilenetv2_1.0"], "another network"),
        (["--dataset-root", "nowhere"], "nowhere: there is no data set"),
        (["--set", "data.val=[test2017]"], "instances_test2017.json: there is no such annotation file"),
        (["--set", "data.val=[broken2017]"], "instances_broken2017.json: not a readable COCO annotation file"),
        (["--set", "data.val=[val2017, broken2017]"], "eval.metric coco counts one split, not val2017, broken2017"),
        (["--set", "data.classes=[unicorn]"], "no usable object of the classes unicorn"),
        (["--set", "data.size=300"], "trained at 512 px"),
    ],
)
def test_wrong_input_is_named(untrained, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        main(["--set", "eval.metric=coco", *untrained, *arguments])  # as the script calls it
    assert caught.value.exit_code == 2
