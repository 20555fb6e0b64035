"""Data sets are read as GluonCV reads them, from every layout, with every kind of class list."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from gan_kd.data import coco, demo, voc
from gan_kd.data.dataset import class_names, open_split
from gan_kd.data.files import find_images, open_images
from gan_kd.data.images import SUFFIXES
from gan_kd.errors import RunError, UsageError
from gan_kd.recipe import from_dict

ANIMALS = ["cat", "cow", "dog", "horse", "sheep"]


def data_of(**keys):
    """The data part of a recipe."""
    return from_dict({"name": "test", "data": keys, "stages": {"plain": {"trains": "baseline", "epochs": 1}}}).data


def xml(size, objects):
    """An annotation; objects: (name, xmin, ymin, xmax, ymax, difficult)."""
    rows = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1, difficult in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{rows}</annotation>"


@pytest.fixture
def folder(tmp_path):
    """Three images of 60 x 40 px in VOC's layout: a has a cat and a difficult dog, b a dog, c nothing."""
    objects = {
        "a": [("cat", 1, 2, 30, 40, 0), ("Dog ", 11.5, 12, 60, 20, 1)],
        "b": [("dog", 5, 5, 20, 20, 0)],
        "c": [],
    }
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, rows in objects.items():
        pixels = rng.integers(0, 255, (40, 60, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"JPEGImages/{name}.jpg"), pixels)
        (tmp_path / f"Annotations/{name}.xml").write_text(xml((60, 40), rows))
    for split in ("train", "val"):
        (tmp_path / f"ImageSets/Main/{split}.txt").write_text("a\nb\n\nc\n")
    return tmp_path


def folder_data(folder, **keys):
    defaults = {"dataset": "folder", "root": str(folder), "train": ["train"], "val": ["val"],
                "classes": ["cat", "dog"]}  # fmt: skip
    return data_of(**{**defaults, **keys})


@pytest.mark.parametrize("which", ["train", "val"])
def test_voc_equals_gluoncv(shared, which):
    from gluoncv.data import VOCDetection

    class Animals(VOCDetection):
        CLASSES = ANIMALS

    root = str(shared / "data/voc12-animals")
    splits = {"train": ["2012/train"], "val": ["2012/val"]}
    data = data_of(root=root, classes=ANIMALS, unknown_classes="ignore", **splits)
    ours, theirs = open_split(data, which), Animals(root, splits=[(2012, which)])
    assert len(ours) == len(theirs) > 1600
    for index, record in enumerate(ours.records):
        label = theirs._label_cache[index]
        np.testing.assert_array_equal(record.boxes, label[:, :4])
        np.testing.assert_array_equal(record.labels, label[:, 4])
        np.testing.assert_array_equal(record.difficult, label[:, 5])
    for index in (0, 700, len(ours) - 1):
        image, label = ours[index]
        expected_image, expected_label = theirs[index]
        np.testing.assert_array_equal(image, expected_image.asnumpy())
        np.testing.assert_array_equal(label, expected_label.astype(np.float32))
        assert (ours.records[index].height, ours.records[index].width) == image.shape[:2]
    assert image.dtype == np.uint8 and label.dtype == np.float32


def test_boxes_that_gluoncv_drops_are_skipped(shared):
    from gluoncv.data import VOCDetection

    class Cells(VOCDetection):
        CLASSES = ("platelets", "rbc", "wbc")

    root = str(shared / "data/bccd")
    splits = {"train": ["2012/trainval"], "val": ["2012/test"]}
    data = data_of(root=root, classes="annotations", on_error="skip", **splits)
    dataset = open_split(data, "train")
    assert dataset.classes == ("Platelets", "RBC", "WBC")
    theirs = Cells(root, splits=[(2012, "trainval")])
    assert len(dataset) == len(theirs)
    for record, label in zip(dataset.records, theirs._label_cache):
        np.testing.assert_array_equal(np.column_stack((record.boxes, record.labels)), label[:, :5])


@pytest.mark.parametrize("which", ["train", "val"])
def test_coco_equals_gluoncv(shared, which):
    from gluoncv.data import COCODetection

    root = str(shared / "data/coco128")
    data = data_of(dataset="coco", root=root, train=["train2017"], val=["val2017"], classes="coco")
    ours = open_split(data, which)
    theirs = COCODetection(root, splits=f"instances_{which}2017", skip_empty=which == "train")
    assert len(ours) == len(theirs) == {"train": 126, "val": 128}[which]
    for index, record in enumerate(ours.records):
        assert str(record.image) == theirs._items[index]
        label = np.array(theirs._labels[index], np.float32)
        label = label[label[:, 4] >= 0]  # GluonCV has a row of -1 for an image without objects
        np.testing.assert_array_equal(np.column_stack((record.boxes, record.labels)), label)
    crowds = [
        entry["iscrowd"]
        for entry in json.loads(Path(root, f"annotations/instances_{which}2017.json").read_bytes())["annotations"]
    ]
    assert sum(record.difficult.sum() for record in ours.records) == sum(crowds)
    np.testing.assert_array_equal(ours[5][0], theirs[5][0].asnumpy())


def test_class_lists_are_gluoncvs():
    from gluoncv.data import COCODetection, VOCDetection

    assert class_names(data_of(classes="voc")) == voc.CLASSES == tuple(VOCDetection.CLASSES)
    assert class_names(data_of(classes="coco")) == coco.CLASSES == tuple(COCODetection.CLASSES)


def test_folder(folder):
    dataset = open_split(folder_data(folder), "val")
    assert dataset.classes == ("cat", "dog")
    assert [record.id for record in dataset.records] == ["a", "b", "c"]
    image, label = dataset[0]
    assert image.shape == (40, 60, 3)
    np.testing.assert_array_equal(label, [[0, 1, 29, 39, 0, 0], [10.5, 11, 59, 19, 1, 1]])
    assert dataset[2][1].shape == (0, 6)
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[1][1], dataset[1][1])


def test_images_without_an_object_are_measured_but_not_trained_on(folder):
    cats = folder_data(folder, classes=["cat"], unknown_classes="ignore")
    assert [record.id for record in open_split(cats, "train").records] == ["a"]
    assert [len(record.labels) for record in open_split(cats, "val").records] == [1, 0, 0]


def test_splits_are_joined_in_order(shared):
    root = str(shared / "data/bccd")
    data = data_of(root=root, train=["2012/val", "2012/test"], val=["2012/test"], classes="annotations",
                   on_error="skip")  # fmt: skip
    lists = shared / "data/bccd/VOC2012/ImageSets/Main"
    names = [(lists / f"{split}.txt").read_text() for split in ("val", "test")]
    assert [record.id for record in open_split(data, "train").records] == "".join(names).split()


def test_holdout_splits_the_training_images(folder):
    """Every k-th is measured, the others are trained on, val is left alone."""
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\na\nb\nb\n")
    (folder / "ImageSets/Main/val.txt").write_text("c\n")
    data = folder_data(folder, holdout=2)
    assert [record.id for record in open_split(data, "train").records] == ["b", "b"]
    assert [record.id for record in open_split(data, "val").records] == ["a", "a", "b"]


def test_class_names(folder):
    def classes(value):
        return class_names(folder_data(folder, classes=value))

    (folder / "names.txt").write_text("dog\n\n  Big Cat \n")
    assert classes("annotations") == ("cat", "dog")  # two spellings of a class are one
    assert classes(["Dog", " cat "]) == ("Dog", "cat")
    assert classes(str(folder / "names.txt")) == ("dog", "Big Cat")
    drawn = data_of(dataset="demo", root=str(folder / "none"), classes="annotations")
    assert class_names(drawn) == demo.CLASSES
    dataset = open_split(folder_data(folder, classes=["DOG", "Cat"]), "val")
    assert dataset.records[0].labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["cat", "Cat"], "data.classes: names class 'cat' twice"),
        ("empty.txt", "empty.txt: names no class"),
        ("none.txt", "none.txt: not a readable list of class names for data.classes"),
    ],
)
def test_class_lists_that_are_refused(folder, value, message):
    (folder / "empty.txt").write_text("\n")
    value = str(folder / value) if isinstance(value, str) else value
    with pytest.raises(UsageError, match=message):
        class_names(folder_data(folder, classes=value))


def test_annotations_without_a_name(folder):
    (folder / "ImageSets/Main/train.txt").write_text("c\n")
    with pytest.raises(UsageError, match="no object in data.train names a class; list them in data.classes"):
        class_names(folder_data(folder, classes="annotations"))


@pytest.mark.parametrize("suffix", [changed for s in SUFFIXES for changed in (s, s.upper())])
def test_every_image_that_detection_takes_is_trained_on(folder, suffix):
    image = cv2.imread(str(folder / "JPEGImages/a.jpg"))
    (folder / "JPEGImages/a.jpg").unlink()
    file = folder / f"JPEGImages/a{suffix}"
    coded = cv2.imencode(".jpg" if suffix.lower() == ".jfif" else suffix, image)[1]  # OpenCV writes no .jfif
    file.write_bytes(coded.tobytes())
    read = open_split(folder_data(folder), "val")[0][0]
    if suffix.lower() in (".png", ".bmp"):  # without loss
        np.testing.assert_array_equal(read, image[..., ::-1])
    assert find_images([file.parent])[0] == file
    assert not open_images([file])[1]


@pytest.mark.parametrize("suffix", [".tif", ".tiff"])
def test_tiff_is_offered_nowhere(folder, tmp_path, suffix):
    (tmp_path / "scans").mkdir()
    file = tmp_path / f"scans/a{suffix}"
    cv2.imwrite(str(file), cv2.imread(str(folder / "JPEGImages/a.jpg")))
    with pytest.raises(
        UsageError, match=r"the folder holds no image \(\.jpg, \.jpeg, \.jpe, \.jfif, \.png, \.bmp, \.webp\)"
    ):
        find_images([file.parent])
    assert [problem.what for problem in open_images([file])[1]] == [
        "is not an image of the formats JPEG, PNG, BMP, WEBP"
    ]


@pytest.mark.parametrize("size", ["<size><width>0</width><height>0</height></size>", ""])
def test_the_size_is_the_images_where_the_annotation_gives_none(folder, size):
    file = folder / "Annotations/a.xml"
    file.write_text(file.read_text().replace("<size><width>60</width><height>40</height></size>", size))
    record = open_split(folder_data(folder), "val").records[0]
    assert (record.width, record.height) == (60, 40)


def test_the_size_of_a_turned_photo(folder):
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: to be shown turned by 90 degrees
    with Image.open(folder / "JPEGImages/a.jpg") as image:
        image.save(folder / "JPEGImages/a.jpg", exif=turned)
    (folder / "Annotations/a.xml").write_text(xml((40, 60), [("cat", 1, 1, 40, 60, 0)]))
    dataset = open_split(folder_data(folder), "val")
    assert (dataset.records[0].width, dataset.records[0].height) == (40, 60)
    assert dataset[0][0].shape == (60, 40, 3)
    assert dataset.image(0, 8).shape == (8, 5, 3)


def test_what_is_not_there(folder):
    with pytest.raises(UsageError, match="nowhere: there is no data set .*download voc --root .*nowhere"):
        open_split(data_of(root=str(folder / "nowhere")), "train")
    with pytest.raises(UsageError, match="nowhere: there is no data set .data.root.; name its folder"):
        open_split(folder_data(folder / "nowhere"), "train")
    with pytest.raises(UsageError, match="test.txt: there is no such list .*splits there: train, val"):
        open_split(folder_data(folder, val=["test"]), "val")
    with pytest.raises(UsageError, match="VOC2012/ImageSets/Main/val.txt: .*no split is there; check"):
        open_split(data_of(root=str(folder), val=["2012/val"]), "val")
    with pytest.raises(UsageError, match="instances_train2017.json: there is no such annotation file"):
        open_split(data_of(dataset="coco", root=str(folder), train=["train2017"]), "train")
    with pytest.raises(UsageError, match="holds no usable object of the classes horse; check data.classes"):
        open_split(folder_data(folder, classes=["horse"], unknown_classes="ignore"), "val")


def test_an_image_that_vanishes(folder):
    dataset = open_split(folder_data(folder), "val")
    (folder / "JPEGImages/b.jpg").unlink()
    with pytest.raises(RunError, match="b.jpg: cannot be decoded as an image any more"):
        dataset[1]


def test_the_demo_is_drawn_on_first_use(tmp_path):
    data = data_of(dataset="demo", root=str(tmp_path / "demo"), train=["train"], val=["test"],
                   classes="annotations", demo={"train": 3, "test": 2, "seed": 1})  # fmt: skip
    assert len(open_split(data, "train")) == 3
    dataset = open_split(data, "val")
    assert len(dataset) == 2 and dataset.classes == demo.CLASSES
    shutil.rmtree(tmp_path / "demo/ImageSets")
    with pytest.raises(UsageError, match="test.txt: there is no such list"):  # drawn once, not at every use
        open_split(data, "val")


def test_workers_need_no_mxnet():
    program = (
        "import sys, gan_kd.data.check, gan_kd.data.download\n"
        "assert not {'mxnet', 'gluoncv', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
