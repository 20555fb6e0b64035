"""Inputs that people brought: each kind drawn here, and the file of ../shared/cases where that is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_kd.data.check import Report, check, preflight
from gan_kd.data.dataset import class_names, open_split
from gan_kd.errors import UsageError
from tests.conftest import ROOT
from tests.data import drawn
from tests.data.drawn import BOXES, all_found, content, data_of, xml

CASES = ROOT.parent / "shared" / "cases"
Draw = Callable[[Path], Path]


def both(draw: Draw, place: str) -> pytest.MarkDecorator:
    """A test runs on what `draw` draws and on the case of that place."""
    sources = [pytest.param(draw, id="drawn"), pytest.param(lambda _: _case(place), id=place.replace("/", "-"))]
    return pytest.mark.parametrize("source", sources)


def _case(place: str) -> Path:
    if not (CASES / place).is_dir():
        pytest.skip("the cases (../shared/cases) are not beside this checkout")
    return CASES / place / "data"


def sound(data) -> Report:
    """The report of a set without problems; perfect detections have an AP of 100 on it."""
    report = check(data)
    assert report.problems == []
    for found in report.scans:
        assert all_found(found.dataset)
    return report


def faulty(data, *words: str) -> str:
    """The text of the problems, which holds the words; a training stops with the first of them."""
    text = "\n".join(map(str, check(data).problems))
    for word in words:
        assert word in text
    with pytest.raises(UsageError):
        preflight(data)
    return text


def coco_of(change: Callable[[dict, dict], object]) -> Draw:
    def draw(root: Path) -> Path:
        train, val = content("t", 4), content("v", 2)
        change(train, val)
        return drawn.coco(root, train, val)

    return draw


def every_val(**keys) -> Draw:
    return coco_of(lambda _, val: [entry.update(keys) for entry in val["annotations"]])


def plain_voc(root: Path, **changed: str | bytes) -> Path:
    return drawn.voc(root, {name: xml(*BOXES) for name in ("t0", "t1", "v0")} | changed)


@both(every_val(iscrowd=None), "B01")
def test_iscrowd_null_is_no_crowd(source, tmp_path):
    report = sound(data_of(source(tmp_path), "coco"))
    assert not any(record.difficult.any() for record in report.scans[1].dataset.records)


def _as_texts(_, val):
    for entry in val["annotations"]:
        entry["bbox"] = list(map(str, entry["bbox"]))


@both(coco_of(_as_texts), "B02")
def test_numbers_as_texts_are_numbers(source, tmp_path):
    report = sound(data_of(source(tmp_path), "coco"))
    train, val = (found.dataset.records[0].boxes for found in report.scans)
    np.testing.assert_array_equal(train, val)


def _one_category(_, val):
    val["categories"] = val["categories"][:1]
    val["annotations"] = [entry for entry in val["annotations"] if entry["category_id"] == 1]


@both(coco_of(_one_category), "B03")
def test_a_class_that_val_lacks_has_no_ap(source, tmp_path):
    report = sound(data_of(source(tmp_path), "coco"))
    assert report.scans[1].dataset.classes == ("cat", "dog") and report.scans[1].counts()["dog"] == 0


@both(coco_of(lambda _, val: val["annotations"][0].update(area=None)), "B04")
def test_an_area_of_null_is_that_of_the_box(source, tmp_path):
    record = sound(data_of(source(tmp_path), "coco")).scans[1].dataset.records[0]
    assert record.areas is not None and record.areas[0] == pytest.approx(40 * 30)


@both(lambda root: plain_voc(root, v0=xml(*BOXES, difficult=1)), "B06")
def test_a_val_split_of_difficult_objects_is_told(source, tmp_path):
    faulty(data_of(source(tmp_path)), "holds no object that an mAP counts")


@both(every_val(iscrowd="0"), "B06/coco")
def test_a_flag_of_the_text_0_is_no(source, tmp_path):
    sound(data_of(source(tmp_path), "coco"))


def _ids_from_1_twice(train, val):
    for whole in (train, val):
        whole["images"][1]["id"] = 1
        for entry in whole["annotations"][2:4]:
            entry["image_id"] = 1


@both(coco_of(_ids_from_1_twice), "B08")
def test_two_images_of_one_id_are_told(source, tmp_path):
    root = source(tmp_path)
    faulty(data_of(root, "coco"), "instances_train.json: image 1: its id is that of 2 images (t0.jpg, t1.jpg)")
    skipped = data_of(root, "coco", on_error="skip")
    assert [record.image.name for record in open_split(skipped, "train").records] == ["t2.jpg", "t3.jpg"]
    with pytest.raises(UsageError, match="data.val .val. holds no usable object"):
        preflight(skipped)


def test_an_image_entry_given_twice_is_taken_once(tmp_path):
    draw = coco_of(lambda train, _: train["images"].append(dict(train["images"][0])))
    report = sound(data_of(draw(tmp_path), "coco"))
    assert len(report.scans[0].dataset) == 4
    assert "1 entries of an image that is there already: taken once" in str(report)


def _id_as_text(train, _):
    for entry in train["annotations"][:4]:
        entry["image_id"] = str(entry["image_id"])
    train["annotations"][4]["image_id"] = 3.0


@both(coco_of(_id_as_text), "B09")
def test_ids_of_another_type_are_matched(source, tmp_path):
    report = sound(data_of(source(tmp_path), "coco"))
    assert report.scans[0].counts() == {"cat": 4, "dog": 4} and report.scans[0].without_object == 0


def _two_cats(train, val):
    for whole in (train, val):
        whole["categories"].insert(0, {"id": 3, "name": "Cat"})
    val["annotations"][0]["category_id"] = 3


@both(coco_of(_two_cats), "B11")
def test_categories_of_one_name_are_one_class(source, tmp_path):
    report = sound(data_of(source(tmp_path), "coco"))
    assert len(report.scans[1].dataset.classes) == 2
    assert "categories with the name of another: taken as one class" in str(report)


def _two_names(train, val):
    for whole in (train, val):
        whole["categories"].append({"id": 1, "name": "bird"})


@both(coco_of(_two_names), "B11/dup_id")
def test_a_category_of_two_names_is_told(source, tmp_path):
    root = source(tmp_path)
    faulty(data_of(root, "coco"), "instances_train.json: image 1, annotation 10: category_id 1 has several names: cat")
    train, val = preflight(data_of(root, "coco", on_error="skip"))
    assert train.classes == ("dog",) and len(train) == 4


@both(coco_of(lambda _, val: val["annotations"][0].update(bbox=[500, 10, 40, 30])), "B12")
def test_what_is_left_out_is_not_missed(source, tmp_path, caplog):
    root = source(tmp_path)
    faulty(data_of(root, "coco"), "image 1, annotation 10: the box of 'cat' (x 500, y 10", "leaves the image")
    _, val = preflight(data_of(root, "coco", on_error="skip"))
    assert all_found(val)
    assert "left out: single objects" in caplog.text and "x 500" in caplog.text


@pytest.mark.parametrize("bbox", [[10, 10, -40, 30], [10, 10, 0, 30], [10, 10, float("nan"), 30], "abcd", None])
def test_boxes_that_are_none_are_told_and_not_missed(bbox, tmp_path):
    root = coco_of(lambda _, val: val["annotations"][0].update(bbox=bbox))(tmp_path)
    faulty(data_of(root, "coco"), "image 1, annotation 10: ")
    assert all_found(preflight(data_of(root, "coco", on_error="skip"))[1])


def _list(text: bytes, split: str = "train") -> Draw:
    def draw(root: Path) -> Path:
        drawn.listed(plain_voc(root), split, text)
        return root

    return draw


@both(_list("t0\r\nt1\r\n".encode("utf-16")), "B17/utf16")
def test_a_list_in_utf_16(source, tmp_path):
    data = data_of(source(tmp_path))
    sound(data)
    assert [record.id for record in open_split(data, "train").records] == ["t0", "t1"]


@both(_list(b"t0  1\nt1 -1\n"), "B17/label")
def test_a_list_with_a_label_column(source, tmp_path):
    data = data_of(source(tmp_path))
    assert "2 lines of a list with a column of -1, 0 or 1, which is not used" in str(sound(data))
    assert [record.id for record in open_split(data, "train").records] == ["t0", "t1"]


@both(_list(b"JPEGImages/t0.jpg\n"), "B17/path")
def test_a_list_of_paths(source, tmp_path):
    data = data_of(source(tmp_path))
    assert "1 lines of a list that are paths" in str(sound(data))
    assert [record.id for record in open_split(data, "train").records] == ["t0"]


@pytest.mark.parametrize("line", ["/elsewhere/VOC/JPEGImages/t0.jpg", "C:\\VOC\\JPEGImages\\t0.jpg", "./img/t0.JPG"])
def test_paths_of_another_machine(line, tmp_path):
    data = data_of(_list(f"{line}\n".encode())(tmp_path))
    sound(data)
    assert [record.id for record in open_split(data, "train").records] == ["t0"]


@both(_list(b"t0.jpg\nt1.jpg\n"), "B17/ext")
def test_a_list_with_extensions(source, tmp_path):
    data = data_of(source(tmp_path))
    sound(data)
    assert [record.id for record in open_split(data, "train").records] == ["t0", "t1"]


def test_a_list_of_images_that_are_not_there_names_the_first(tmp_path):
    data = data_of(_list(b"a\nb.jpg\nc\nd\n")(tmp_path))
    with pytest.raises(UsageError, match=r"names a class .*JPEGImages/a.jpg: does not exist, but .*train.txt names it"):
        class_names(data)


def _suffixes(root: Path) -> Path:
    names = {"t0": ".webp", "t1": ".BMP", "t2": ".Jpg", "t3": ".jfif", "t4": ".jpg", "v0": ".jpg"}
    return drawn.voc(root, {name: xml(*BOXES) for name in names}, names)


@both(_suffixes, "B18")
def test_suffixes_in_any_case(source, tmp_path):
    report = sound(data_of(source(tmp_path)))
    assert [record.id for record in report.scans[0].dataset.records] == ["t0", "t1", "t2", "t3", "t4"]


def test_an_image_in_two_formats_is_told(tmp_path):
    drawn.image(plain_voc(tmp_path) / "JPEGImages/t0.png")
    assert "1 images that are there in several formats" in str(sound(data_of(tmp_path)))


def _from_0(root: Path) -> Path:
    floats = xml(("cat", 0.35, 12.5, 49.8, 39.1), ("dog", 40, 30, 101, 81))
    return plain_voc(root, t0=xml(("cat", 0, 0, 49, 39), BOXES[1]), t1=floats)


@both(_from_0, "B19")
def test_boxes_counted_from_0_are_cut_off(source, tmp_path):
    report = sound(data_of(source(tmp_path)))
    one, other = report.scans[0].dataset.records
    np.testing.assert_allclose(one.boxes[0], [0, 0, 48, 38])
    np.testing.assert_allclose([other.boxes[0][0], *other.boxes[1][2:]], [0, 99, 79])
    assert "3 boxes of which a side lies a pixel past the image" in str(report)


def _sensor(root: Path) -> Path:
    plain_voc(root)
    (root / "JPEGImages/t0.jpg").unlink()
    pixels = np.random.default_rng(0).integers(800, 4096, (80, 100), np.uint16)
    Image.fromarray(pixels).save(root / "JPEGImages/t0.png")
    return root


@both(_sensor, "B21")
def test_twelve_of_sixteen_bits_are_told(source, tmp_path):
    root = source(tmp_path)
    faulty(data_of(root), "t0.png: has 16 bits a channel, but no value above", "stretch its values to 65535")
    assert [record.id for record in preflight(data_of(root, on_error="skip"))[0].records] == ["t1"]


def test_sixteen_bits_in_use_are_counted(tmp_path):
    plain_voc(tmp_path)
    (tmp_path / "JPEGImages/t0.jpg").unlink()
    pixels = np.linspace(0, 65535, 8000).reshape(80, 100).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "JPEGImages/t0.png")
    report = sound(data_of(tmp_path))
    assert "1 images of 16 bits a channel: the upper 8 are used" in str(report)
    np.testing.assert_array_equal(report.scans[0].dataset.image(0)[..., 0], pixels >> 8)


def _declared(root: Path) -> Path:
    texts = {name: f'<?xml version="1.0" encoding="{name}"?>' for name in ("GB2312", "gbk", "Shift_JIS")}
    return plain_voc(
        root,
        t0=xml(BOXES[0], head=texts["GB2312"]).encode("gbk"),
        t1=xml(("猫", *BOXES[0][1:]), head=texts["gbk"]).encode("gbk"),
        t2=xml(BOXES[0], head=texts["Shift_JIS"]).encode("shift_jis"),
    )


@both(_declared, "B22")
def test_declared_encodings_are_read(source, tmp_path):
    report = sound(data_of(source(tmp_path), classes=["cat", "dog", "猫"]))
    assert report.scans[0].counts() == {"cat": 2, "猫": 1}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "euc_jp", "big5", "cp1252", "iso8859-1"])
def test_encodings_with_and_without_a_mark(encoding, tmp_path):
    head = "" if encoding.startswith("utf") else f'<?xml version="1.0" encoding="{encoding}"?>'
    name = {"big5": "貓", "cp1252": "ciré", "iso8859-1": "ciré"}.get(encoding, "猫")
    plain_voc(tmp_path, t0=xml((name, *BOXES[0][1:]), head=head).encode(encoding))
    assert sound(data_of(tmp_path)).scans[0].counts()[name] == 1


def test_what_says_utf_16_and_is_utf_8(tmp_path):
    plain_voc(tmp_path, t0=xml(("猫", 1, 1, 9, 9), head='<?xml version="1.0" encoding="utf-16"?>'))
    assert sound(data_of(tmp_path)).scans[0].counts()["猫"] == 1


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ('<?xml version="1.0" encoding="idna"?>', "encoding 'idna', which is not known"),
        ("", "is not UTF-8 at its byte"),
    ],
)
def test_encodings_that_are_told(head, message, tmp_path):
    faulty(data_of(plain_voc(tmp_path, t0=xml(("狗", 1, 1, 9, 9), head=head).encode("gbk"))), "t0.xml", message)


@both(lambda root: plain_voc(root, t1=xml(("traffic\u00a0light", 1, 1, 9, 9), *BOXES)), "B23")
def test_a_name_with_a_no_break_space_is_told(source, tmp_path):
    root = source(tmp_path)
    faulty(data_of(root), "t1.xml: object 1: class 'traffic\\xa0light' has characters that no class name may have")
    train, _ = preflight(data_of(root, on_error="skip"))
    assert train.classes == ("cat", "dog") and len(train) == 2


def _sizes(train, val):
    train["images"][0].update(width="100", height="80")
    train["images"][1].update(width=None)
    del train["images"][2]["height"]
    val["images"][0].update(width=0, height=0)


@both(coco_of(_sizes), "B25")
def test_sizes_as_texts_0_null_or_missing(source, tmp_path):
    sound(data_of(source(tmp_path), "coco"))


@both(lambda root: plain_voc(root, t0=xml(*BOXES, size="<width></width><height></height><depth/>")), "B25/voc")
def test_an_empty_size(source, tmp_path):
    sound(data_of(source(tmp_path)))


def _relative(train, val):
    for entry in (*train["annotations"], *val["annotations"]):
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x / 100, y / 80, width / 100, height / 80]


@both(coco_of(_relative), "B26")
def test_boxes_in_parts_of_the_image_are_told(source, tmp_path):
    faulty(data_of(source(tmp_path), "coco"), "lies within the first pixel: are these parts of the image's sides?")


def test_voc_boxes_in_parts_of_the_image_are_told(tmp_path):
    faulty(data_of(plain_voc(tmp_path, t0=xml(("cat", 0.1, 0.1, 0.5, 0.5)))), "t0.xml: object 1", "parts of the image")


def _tagged(root: Path) -> Path:
    root = root / "VOC2012"
    plain_voc(root)
    tag = Image.Exif()
    tag[0x0112] = 3
    with Image.open(root / "JPEGImages/t0.jpg") as photo:
        photo.save(root / "JPEGImages/t0.jpg", exif=tag)
    return root.parent


@both(_tagged, "B40")
def test_orientation_tags_are_counted_with_the_convention(source, tmp_path):
    data = data_of(source(tmp_path), "voc", train=["2012/train"], val=["2012/val"])
    text = str(sound(data))
    assert "images turned as their orientation tag (EXIF) says" in text and "MXNet's imread" in text
    assert "the check cannot tell" in text


def test_mxnet_does_not_turn_and_we_do(tmp_path):
    """The convention that the check states."""
    import cv2
    import mxnet as mx

    from gan_kd.data.images import read

    tag = Image.Exif()
    tag[0x0112] = 6
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30] = 255
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=tag, quality=95)
    assert mx.image.imread(str(tmp_path / "a.jpg")).shape == (40, 60, 3)
    turned = read(tmp_path / "a.jpg")
    assert turned.shape == (60, 40, 3) and turned[5, 35].min() > 200 > 50 > turned[5, 5].max()
    np.testing.assert_array_equal(turned, cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1])


def test_copies_and_images_of_both_splits_are_counted(tmp_path):
    plain_voc(tmp_path)
    photo = (tmp_path / "JPEGImages/t0.jpg").read_bytes()
    for name in ("t1", "v0"):
        (tmp_path / f"JPEGImages/{name}.jpg").write_bytes(photo)
    drawn.listed(tmp_path, "train", b"t0\nt1\nt1\n")
    text = str(sound(data_of(tmp_path)))
    assert "train: 1 images are copies of others" in text
    assert "1 images of val are in train, too" in text
    assert "train: 1 lines of a list that name an image again" in text


def test_what_is_left_out_of_coco_is_counted(tmp_path):
    def change(train, _):
        more = [dict(train["annotations"][0], **keys) for keys in (
            {"image_id": 99}, {"ignore": 1}, {"bbox": [5, 5, 0.5, 30]}, {"bbox": [-0.5, 5, 30, 30]}, {},
            {"bbox": [30, 30, 9, 9], "area": 1e9},
        )]  # fmt: skip
        train["annotations"] += more

    report = sound(data_of(coco_of(change)(tmp_path), "coco"))
    for line in (
        "1 annotations of images that the file does not list: left out", "1 objects marked ignore: left out",
        "1 boxes of a pixel at most: left out", "1 boxes that leave the image by a pixel at most: cut off",
        "1 objects given twice in one place of an image: taken once", "1 areas larger than the image",
    ):  # fmt: skip
        assert line in str(report)
    assert report.scans[0].counts() == {"cat": 6, "dog": 4}


def test_what_voc_writes_twice(tmp_path):
    second = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
    two_boxes = xml(BOXES[0]).replace("</object>", second)
    again = xml(*BOXES, BOXES[0])
    report = sound(data_of(plain_voc(tmp_path, t0=two_boxes, t1=again)))
    assert "1 objects with more than one bndbox: the first is used" in str(report)
    assert "1 objects given twice in one place of an image: taken once" in str(report)
    assert report.scans[0].counts() == {"cat": 2, "dog": 1}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>cat</name>", "<name>cat</name><name>dog</name>", "object 1: has several name: 'cat' and 'dog'"),
        ("<xmin>10</xmin>", "<xmin>10</xmin><xmin>12</xmin>", "has several bndbox/xmin: '10' and '12'"),
        ("<difficult>0</difficult>", "<difficult>hard</difficult>", "difficult is 'hard', neither 0 nor 1"),
    ],
)
def test_elements_that_say_two_things_are_told(old, new, message, tmp_path):
    root = plain_voc(tmp_path, t0=xml(*BOXES).replace(old, new, 1))
    faulty(data_of(root), "t0.xml: object 1", message)
    assert len(preflight(data_of(root, on_error="skip"))[0].records[0].labels) == 1


@pytest.mark.parametrize(("word", "hard"), [("true", 1), ("Unspecified", 0), ("1.0", 1), ("No", 0)])
def test_difficult_flags_in_words(word, hard, tmp_path):
    report = check(data_of(plain_voc(tmp_path, t0=xml(*BOXES, difficult=word))))
    assert not report.problems and f"2 difficult flags of '{word}', taken as {hard}" in str(report)
    assert report.scans[0].dataset.records[0].difficult.tolist() == [bool(hard)] * 2


def test_names_in_another_case_are_counted(tmp_path):
    text = str(
        sound(
            data_of(plain_voc(tmp_path, t0=xml(("CAT", *BOXES[0][1:])))),
        )
    )
    assert "1 objects of 'CAT' taken as 'cat'" in text


@pytest.mark.parametrize(("part", "entry"), [("images", [1]), ("annotations", "x"), ("categories", 7)])
def test_entries_that_are_none_are_told_and_skipped(part, entry, tmp_path):
    root = coco_of(lambda train, _: train[part].append(entry))(tmp_path)
    faulty(data_of(root, "coco"), f"instances_train.json: {part}, entry", "not an entry with keys")
    assert len(preflight(data_of(root, "coco", on_error="skip"))[0]) == 4


def test_more_objects_than_coco_finds_are_told(tmp_path):
    boxes = [("cat", 1 + x, 1 + y, 5 + x, 5 + y) for x in range(0, 90, 6) for y in range(0, 42, 6)]
    report = check(data_of(plain_voc(tmp_path, v0=xml(*boxes))))
    assert "1 images with more than 100 objects of a class, of which COCO AP finds no more" in str(report)
    assert len(report.scans[1].dataset.records[0].labels) == len(boxes) == 105


def test_image_files_elsewhere(tmp_path):
    def change(train, _):
        train["images"][0]["file_name"] = "train\\t0.jpg"
        train["images"][1]["file_name"] = "t1.JPG"

    coco_of(lambda *_: None)(tmp_path)
    whole = content("t", 4)
    change(whole, None)
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(whole))
    assert "2 images that are in another folder than their file_name says" in str(sound(data_of(tmp_path, "coco")))


def test_the_page_of_inputs_names_tests_that_exist():
    rows = [line for line in (ROOT / "results/inputs.md").read_text("utf-8").splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 30
    for row in rows:
        kind, _, test = (part.strip() for part in row.strip("| ").rsplit(" | ", 2))
        file, _, name = test.strip("`").partition("::")
        assert kind and f"def {name}(" in (ROOT / file).read_text("utf-8"), row
