"""The check finds every fault, names file, value and way out, and a training stops or goes on without it."""

from __future__ import annotations

import json
import logging
import re
from functools import partial

import cv2
import numpy as np
import pytest
from PIL import ImageFile

from gan_kd.__main__ import main
from gan_kd.data.check import check, preflight
from gan_kd.errors import UsageError
from gan_kd.recipe import from_dict, to_yaml

NAMES = ("a", "b", "c")
SIZE = (60, 40)
CAT = ("cat", 5, 6, 30, 35)
OBJECT = """<object><name>{0}</name><difficult>0</difficult><bndbox>
<xmin>{1}</xmin><ymin>{2}</ymin><xmax>{3}</xmax><ymax>{4}</ymax></bndbox></object>"""


def annotation(*objects, size=SIZE):
    rows = "".join(OBJECT.format(*row) for row in objects)
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{rows}</annotation>"


def write_images(folder):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in NAMES:
        cv2.imwrite(str(folder / f"{name}.jpg"), rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8))


@pytest.fixture
def folder(tmp_path):
    """A sound set in VOC's layout: a cat and a dog in each of three images, two of them in val as well."""
    write_images(tmp_path / "JPEGImages")
    for name in ("Annotations", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    for name in NAMES:
        (tmp_path / f"Annotations/{name}.xml").write_text(annotation(CAT, ("dog", 1, 1, 60, 40)))
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\nc\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("a\nc\n")
    return tmp_path


def recipe_of(folder, **keys):
    data = {"dataset": "folder", "root": str(folder), "train": ["train"], "val": ["val"], "size": 128,
            "classes": ["cat", "dog"]}  # fmt: skip
    return from_dict(
        {
            "name": "test",
            "data": {**data, **keys},
            "teacher": {"backbone": "mobilenet0.5", "init": "random"},
            "student": {"backbone": "mobilenet0.25", "init": "random"},
            "stages": {"plain": {"trains": "baseline", "epochs": 1}},
            "train": {"batch_size": 2, "num_workers": 0},
        }
    )


def data_of(folder, **keys):
    return recipe_of(folder, **keys).data


def cut(file, keep):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])


def spoil_xml(folder, text):
    (folder / XML).write_text(text)


XML, JPEG = "Annotations/b.xml", "JPEGImages/b.jpg"
LEFT_OUT, ONE_BOX_LESS = 2, 3  # images used of three; a lost box costs no image

# What is done to image b or its annotation; the file named, what is said of it, the images left.
FAULTS = {
    "missing image": (lambda f: (f / JPEG).unlink(), JPEG, "does not exist, but .*train.txt names", LEFT_OUT),
    "half a JPEG": (lambda f: cut(f / JPEG, 0.5), JPEG, "cannot be decoded .image file is trunc", LEFT_OUT),
    "JPEG without its end": (lambda f: cut(f / JPEG, 0.999), JPEG, "cannot be decoded .*truncated", LEFT_OUT),
    "JPEG's first bytes": (lambda f: cut(f / JPEG, 0.05), JPEG, "cannot be decoded", LEFT_OUT),
    "empty image": (lambda f: cut(f / JPEG, 0), JPEG, "is not an image of the formats JPEG, PNG", LEFT_OUT),
    "text as image": (lambda f: (f / JPEG).write_text("<html>"), JPEG, "is not an image", LEFT_OUT),
    "missing annotation": (lambda f: (f / XML).unlink(), XML, "does not exist", LEFT_OUT),
    "no XML": (lambda f: (f / XML).write_text("no xml"), XML, "is not XML .syntax error: line 1", LEFT_OUT),
    "half an annotation": (lambda f: cut(f / XML, 0.5), XML, "is not XML", LEFT_OUT),
    "other image's size": (
        lambda f: (f / XML).write_text(annotation(CAT, size=(500, 375))),
        XML,
        "is for an image of 500 x 375 px, but its image has 60 x 40",
        LEFT_OUT,
    ),
}  # fmt: skip

# An object beside the cat, and what is said of it.
OBJECTS = {
    "no area": (("dog", 7, 8, 7, 20), "the box of 'dog' .xmin 7, ymin 8, xmax 7, ymax 20. has no area"),
    "inverted": (("dog", 9, 30, 20, 10), ".* ymax 10. is inverted"),
    "left of the image": (("dog", -1, 8, 20, 20), ".*xmin -1.* leaves the image of 60 x 40 px, whose first"),
    "right of the image": (("dog", 8, 8, 62, 20), ".*xmax 62.* leaves the image of 60 x 40 px"),
    "unknown class": (("yak", 8, 8, 20, 20), "class 'yak' is not in data.classes .cat, dog.: add it there"),
    "no number": (("dog", 8, "x8", 20, 20), "ymin is 'x8', not a number"),
    "not finite": (("dog", 8, 8, "nan", 20), "xmax is 'nan', not a number"),
    "missing number": (("dog", 8, 8, 20, ""), "has no bndbox/ymax"),
    "no name": ((" ", 8, 8, 20, 20), "has no name"),
}  # fmt: skip
for what, (row, message) in OBJECTS.items():
    text = annotation(CAT, row)
    FAULTS[what] = (partial(spoil_xml, text=text), XML, f"object 2: {message}", ONE_BOX_LESS)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found(folder, fault, caplog):
    spoil, file, message, left = FAULTS[fault]
    spoil(folder)
    problems = check(data_of(folder)).problems
    assert [problem.file for problem in problems] == [folder / file]
    assert re.match(message, problems[0].what)
    with pytest.raises(UsageError, match=f"b....: {message}") as caught:
        preflight(data_of(folder))
    assert "--data.on-error skip" in str(caught.value) and "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING, "gan_kd"):
        train, val = preflight(data_of(folder, on_error="skip"))
    lost = f"{3 - left} images, and single objects of others" if left < 3 else "single objects"
    assert f"left out: {lost} ({folder / file}: " in caplog.text
    assert (len(train), len(val)) == (left, 2)
    boxes = {record.id: len(record.labels) for record in train.records}
    assert boxes == {"a": 2, "c": 2} if left == LEFT_OUT else {"a": 2, "b": 1, "c": 2}


def test_a_sound_set(folder):
    report = check(data_of(folder))
    assert report.problems == []
    lines = [line.split() for line in str(report).splitlines()]
    table = [["class", "train", "val"], ["cat", "3", "2"], ["dog", "3", "2"], ["images", "3", "2"]]
    assert lines[:4] == table and lines[-1] == ["no", "problems", "in", "5", "images"]
    assert lines[4][:9] == ["2", "images", "of", "val", "are", "in", "train,", "too,", "so"] and len(lines) == 6
    assert [len(dataset) for dataset in preflight(data_of(folder))] == [3, 2]


def test_boxes_up_to_the_border_are_sound(folder):
    # 61 in 60 px: GluonCV takes it, and tools that count from 0 write it.
    (folder / XML).write_text(annotation(("dog", 1, 1, 61, 41), ("cat", 1, 1, 2, 2)))
    assert check(data_of(folder)).problems == []


def test_all_faults_are_listed(folder):
    cut(folder / "JPEGImages/a.jpg", 0.5)
    (folder / "Annotations/a.xml").write_text("")
    (folder / "Annotations/c.xml").write_text(annotation(("cat", 9, 9, 9, 9), ("yak", 1, 1, 9, 9), CAT))
    report = check(data_of(folder))
    faults = [(problem.file.name, problem.what.split(":")[0]) for problem in report.problems]
    assert [name for name, _ in faults] == ["a.jpg", "a.xml", "c.xml", "c.xml"]  # once, though in two splits
    assert [what for _, what in faults[2:]] == ["object 1", "object 2"]
    text = str(report)
    assert text.startswith(f"{folder}/JPEGImages/a.jpg: cannot be decoded")
    assert text.endswith("4 problems in 5 images")
    with pytest.raises(UsageError, match="; and 1 more"):
        preflight(data_of(folder))


def test_faults_are_found_after_gluoncv_was_imported(folder, monkeypatch):
    import gluoncv  # noqa: F401  makes Pillow accept images that are cut off

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    cut(folder / JPEG, 0.7)
    assert len(check(data_of(folder)).problems) == 1
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # others may rely on it


def test_unknown_classes_may_be_ignored(folder):
    (folder / XML).write_text(annotation(CAT, ("yak", 8, 8, 8, 8)))
    report = check(data_of(folder, unknown_classes="ignore"))
    assert report.problems == []


def test_nothing_of_the_classes(folder):
    report = check(data_of(folder, classes=["yak"], unknown_classes="ignore"))
    assert [problem.what for problem in report.problems] == [
        f"data.{key} ({key}) holds no usable object of the classes yak; check data.classes" for key in ("train", "val")
    ]
    assert "3 images hold no object of the classes: not trained on" in str(report)


def test_nothing_is_left_after_skipping(folder):
    for name in NAMES:
        cut(folder / f"JPEGImages/{name}.jpg", 0.5)
    with pytest.raises(UsageError, match="holds no usable object of the classes cat, dog"):
        preflight(data_of(folder, on_error="skip"))


DIFFICULT = annotation(CAT).replace("<difficult>0", "<difficult>1")


def test_validation_images_without_an_object_that_counts(folder, capsys):
    """Their mAP is nan; they may be trained on."""
    (folder / "Annotations/b.xml").write_text(DIFFICULT)
    (folder / "ImageSets/Main/val.txt").write_text("b\n")
    says = "holds no object that an mAP counts of the classes cat, dog; all are marked difficult or crowd"
    with pytest.raises(UsageError, match=rf"data.val \(val\) {says}"):
        preflight(data_of(folder))
    assert main(["check", "--recipe", write_recipe(folder)]) == 1 and says in capsys.readouterr().out
    assert main(["train", "--recipe", write_recipe(folder), "--save-prefix", str(folder / "runs")]) == 2
    assert not (folder / "runs").exists()
    assert [len(part) for part in preflight(data_of(folder, train=["val"], val=["train"]))] == [1, 3]


def test_images_held_out_without_an_object_that_counts(folder):
    (folder / "Annotations/a.xml").write_text(DIFFICULT)
    with pytest.raises(UsageError, match=r"data.holdout 3 \(of train\) holds no object that an mAP counts"):
        preflight(data_of(folder, holdout=3))


def test_crowds_alone_are_no_validation_set(coco):
    content, data = coco
    for entry in content["annotations"]:
        entry["iscrowd"] = 1
    with pytest.raises(UsageError, match=r"data.val \(all\) holds no object that an mAP counts"):
        preflight(data())


@pytest.fixture
def coco(tmp_path):
    """A sound set in COCO's layout, as the content of its annotation file, and what writes it there."""
    write_images(tmp_path / "all")
    (tmp_path / "annotations").mkdir()
    content = {
        "images": [{"id": i, "file_name": f"{name}.jpg", "width": 60, "height": 40} for i, name in enumerate(NAMES)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"id": 10 * i, "image_id": i, "category_id": 7, "bbox": [4, 5, 26, 30], "area": 780, "iscrowd": 0}
            for i in range(3)
        ],
    }

    def data(**keys):
        (tmp_path / "annotations/instances_all.json").write_text(json.dumps(content))
        return data_of(tmp_path, dataset="coco", train=["all"], val=["all"], **keys)

    return content, data


def changed(**keys):
    return lambda content: content["annotations"][1].update(keys)


COCO_FAULTS = {
    "no area": (changed(bbox=[4, 5, 0, 30]), "image 1, annotation 10: .* 'cat' .*width 0.* has no area"),
    "area of zero": (changed(area=0), "has no area"),
    "inverted": (changed(bbox=[40, 5, -20, 30]), "width -20.* is inverted"),
    "outside": (changed(bbox=[40, 5, 30, 30]), "leaves the image of 60 x 40 px"),
    "area in words": (changed(area="big"), "image 1, annotation 10: area is 'big', not a number"),
    "three numbers": (changed(bbox=[1, 2, 3]), r"bbox is \[1, 2, 3\], not four numbers"),
    "not finite": (changed(bbox=[1, 2, 3, float("nan")]), "height of bbox is nan, not a number"),
    "unknown category": (changed(category_id=5), "category_id 5 is not among the file's categories"),
    "unknown class": (lambda c: c["categories"][0].update(name="yak"), "class 'yak' is not in data.classes"),
    "other size": (lambda c: c["images"][1].update(width=640), "image 1 has 640 x 40 px here, but .* 60 x"),
    "no name": (lambda c: c["images"][1].pop("file_name"), "image 1: has no 'file_name'"),
    "missing image": (lambda c: c["images"][1].update(file_name="d.jpg"), "does not exist, but .* names it"),
}  # fmt: skip


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_every_fault_of_coco_is_found(coco, fault):
    content, data = coco
    assert check(data()).problems == []
    spoil, message = COCO_FAULTS[fault]
    spoil(content)
    problems = check(data()).problems
    assert re.search(message, problems[0].what)
    with pytest.raises(UsageError, match=message):
        preflight(data())
    if fault != "unknown class":  # then nothing is left
        train, val = preflight(data(on_error="skip"))
        assert [record.id for record in train.records] == ["0", "2"]


def test_what_gluoncv_leaves_out_of_coco_is_no_fault(coco):
    content, data = coco
    content["annotations"][1]["bbox"] = [4, 5, 0.7, 30]  # below a pixel
    content["annotations"][2]["ignore"] = 1
    assert check(data()).problems == []
    assert [len(record.labels) for record in preflight(data())[1].records] == [1, 0, 0]


NO_IMAGES = '{"images": [], "categories": [], "annotations": []}'


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}', NO_IMAGES])
def test_an_annotation_file_that_is_not_cocos(coco, text):
    _, data = coco
    recipe = data()
    file = f"{recipe.root}/annotations/instances_all.json"
    with open(file, "w") as stream:
        stream.write(text)
    with pytest.raises(UsageError, match="instances_all.json: (not a readable COCO|holds no image)"):
        check(recipe)


def write_recipe(folder, **keys):
    path = folder / "recipe.yaml"
    path.write_text(to_yaml(recipe_of(folder, **keys)))
    return str(path)


def test_the_command(folder, capsys):
    recipe = write_recipe(folder)
    assert main(["check", "--recipe", recipe]) == 0
    assert "no problems in 5 images" in capsys.readouterr().out
    (folder / XML).write_text("no xml")
    assert main(["check", "--recipe", recipe]) == 1
    assert f"{folder / XML}: is not XML" in capsys.readouterr().out
    assert main(["check", "--recipe", recipe, "--dataset-root", str(folder / "none")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {folder / 'none'}: there is no data set")


def test_a_training_stops_before_it_begins(folder, capsys):
    cut(folder / JPEG, 0.5)
    runs = folder / "runs"
    assert main(["train", "--recipe", write_recipe(folder), "--save-prefix", str(runs)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: {folder / JPEG}: cannot be decoded (image file is truncated")
    assert len(error.splitlines()) == 1
    assert not runs.exists()
