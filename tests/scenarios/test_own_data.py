"""Data of one's own with its own classes: a folder in COCO's layout from check to evaluation, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from gan_kd.__main__ import main
from gan_kd.errors import UsageError
from gan_kd.evaluation.coco import COCOMetric

CATEGORIES = {3: "Nut", 11: "bolt"}  # neither from 1 on nor without gaps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares and discs on grey, as a labelling tool writes them: ids from 0, no area, no iscrowd."""
    root = tmp_path_factory.mktemp("parts")
    (root / "annotations").mkdir()
    rng = np.random.default_rng(1)
    for split, count in (("train", 8), ("val", 5)):
        (root / split).mkdir()
        images: list[dict] = []
        boxes: list[dict] = []
        for i in range(count):
            image = np.full((120, 160, 3), 90, np.uint8)
            for k, category in enumerate(CATEGORIES):
                x, y = (int(v) for v in rng.integers(5, 25, 2) + [75 * k, 20])
                side = int(rng.integers(35, 50))
                if k:
                    cv2.circle(image, (x + side // 2, y + side // 2), side // 2, (40, 200, 240), -1)
                else:
                    cv2.rectangle(image, (x, y), (x + side, y + side), (200, 60, 30), -1)
                boxes.append({"id": len(boxes), "image_id": i, "category_id": category, "bbox": [x, y, side, side]})
            cv2.imwrite(str(root / split / f"{i}.png"), image)
            images.append({"id": i, "file_name": f"{i}.png", "width": 160, "height": 120})
        categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def test_check_finds_the_classes(folder, capsys):
    assert main(["check", "--recipe", "own/coco", "--dataset-root", str(folder)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines[1:3]] == ["bolt", "Nut"]
    assert lines[-1] == ["no", "problems", "in", "13", "images"]


@pytest.mark.parametrize("command", ["check", "train"])
def test_what_the_metric_cannot_take_is_known_before_training(command, folder, tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise UsageError("the metric takes no such box")

    monkeypatch.setattr(COCOMetric, "update", refuse)
    words = ["--set", "teacher.init=random", "--set", "student.init=random"]
    words += ["--save-prefix", str(tmp_path)] if command == "train" else []
    assert main([command, "--recipe", "own/coco", "--dataset-root", str(folder), *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: the metric takes no such box"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_train_and_measure_by_cocos_metric(folder, tmp_path, capsys):
    keys = ["teacher.init=random", "student.init=random", "data.size=128", "distill.gan.width=8"]
    keys += ["stages.teacher.epochs=1", "stages.baseline=null", "stages.distilled.epochs=1"]
    settings = [part for key in keys for part in ("--set", key)]
    own = ["--recipe", "own/coco", "--dataset-root", str(folder), "--batch-size", "4", "-j", "0", *settings]
    assert main(["train", "-q", *own, "--save-prefix", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("=")[0] for line in lines[:-1]] == ["teacher mAP", "distilled mAP"]
    run = tmp_path / "own" / "coco" / "233"
    result = tmp_path / "result.json"
    assert main(["eval", "--params", str(run / "distilled" / "best.params"), "--json", str(result)]) == 0
    measured = json.loads(result.read_text())
    assert list(measured["ap"]) == ["bolt", "Nut"] and measured["metric"] == "coco" and "AP50" in measured["summary"]
    assert measured["map"] == pytest.approx(json.loads((run / "distilled" / "eval.json").read_text())["map"])


def test_a_missing_split_names_those_that_are_there(folder, capsys):
    assert main(["check", "--recipe", "own/coco", "--dataset-root", str(folder), "--set", "data.val=[test]"]) == 2
    error = capsys.readouterr().err
    assert "instances_test.json: there is no such annotation file (splits there: train, val; choose with --set" in error


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A folder in VOC's layout with other splits than train and val, inside of another one."""
    lists = tmp_path / "VOC2012" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name in ("trainval", "test", "cell_test"):
        (lists / f"{name}.txt").write_text("a\n")
    return tmp_path


def test_a_missing_list_names_those_that_are_there(voc, capsys):
    assert main(["check", "--recipe", "own/voc", "--dataset-root", str(voc / "VOC2012")]) == 2
    assert "(splits there: test, trainval; choose with --set 'data.train=[NAME]' and" in capsys.readouterr().err


def test_the_folder_inside_is_proposed(voc, capsys):
    assert main(["check", "--recipe", "own/voc", "--dataset-root", str(voc)]) == 2
    assert f"(did you mean the folder {voc / 'VOC2012'}?)" in capsys.readouterr().err
    shutil.rmtree(voc / "VOC2012")
    assert main(["check", "--recipe", "own/voc", "--dataset-root", str(voc)]) == 2
    assert "no split is there; check data.root" in capsys.readouterr().err
