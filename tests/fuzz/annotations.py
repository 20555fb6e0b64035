"""Annotations: VOC's XML and lists, COCO's JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from gan_kd.data.check import check
from gan_kd.errors import UsageError
from gan_kd.recipe import Data
from tests.fuzz.site import SHARED, Site, written

_OBJECT = (
    "<object><name>{0}</name><difficult>0</difficult><bndbox><xmin>{1}</xmin><ymin>2</ymin><xmax>{2}</xmax>"
    "<ymax>30</ymax></bndbox></object>"
)
_ANNOTATION = "<annotation><size><width>60</width><height>40</height></size>{0}</annotation>"


def xml(folder: Path) -> Site:
    """An annotation among sound ones."""
    data, (file, small) = _voc(folder), _annotation(folder, 3)
    contents = [small, _annotation(folder, 40)[1], small.decode().encode("utf-16")]
    real = sorted((SHARED / "data" / "voc12-animals").rglob("Annotations/*.xml"))[:2]
    contents += [path.read_bytes() for path in real]
    laughs = "".join(_entity(f"a{i}", f"&a{i - 1};" * 10) for i in range(1, 10))
    box = _OBJECT.format("cat", 1, 9)
    hurtful = {
        "entities within entities": _typed(_entity("a0", "x" * 100) + laughs, "&a9;"),
        "a long entity many times": _typed(_entity("a", "x" * 90_000), "&a;" * 80),
        "an entity of another file": _typed('<!ENTITY a SYSTEM "file:///etc/passwd">', "&a;"),
        "a document type elsewhere": b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">' + small,
        "a document type in UTF-16": _typed(_entity("a", "cat"), "&a;").decode().encode("utf-16"),
        "an unknown encoding": b'<?xml version="1.0" encoding="x-none"?>' + small,
        "an encoding that takes minutes": b'<?xml version="1.0" encoding="idna"?>' + small,
        "an encoding that runs code points together": b'<?xml version="1.0" encoding="utf-7"?>' + small,
        "half a character of GBK": b'<?xml version="1.0" encoding="gbk"?>' + small.replace(b"cat", b"\x81"),
        "UTF-16 cut in two": small.decode().encode("utf-16")[:-1],
        "two marks": b"\xff\xfe\xfe\xff" + small,
        "objects within objects": b"<object>" * 300 + small + b"</object>" * 300,
        "several boxes of an object": small.replace(b"</object>", b"<bndbox/><bndbox><xmin>1</xmin></bndbox></object>"),
        "a size of words": small.replace(b"<width>60<", b"<width>wide<"),
        "parts of the image": small.replace(b"<ymin>2<", b"<ymin>0.1<").replace(b"<ymax>30<", b"<ymax>0.5<"),
        "nested 300,000 deep": b"<object>" * 300_000 + b"</object>" * 300_000,
        "50 MB": _ANNOTATION.format(box * 350_000).encode(),
        "numbers of 10,000 digits": small.replace(b"<ymin>2<", b"<ymin>" + b"9" * 10_000 + b"<"),
        "NaN": small.replace(b"<ymin>2<", b"<ymin>NaN<"),
        "1e308": small.replace(b"<ymin>2<", b"<ymin>1e308<"),
        "a name over two lines": small.replace(b"cat", b"c&#10;&#27;at"),
        "a long name": small.replace(b"cat", b"c" * 100_000),
        "a difficult of 10,000 digits": small.replace(b"difficult>0", b"difficult>" + b"9" * 10_000),
    }
    sound = [(file, content) for content in contents]
    file.write_bytes(small)
    return Site(sound, lambda _: _checked(data), lambda path: ElementTree.parse(path).getroot(), hurtful)


def lists(folder: Path) -> Site:
    """The list of a split, and of classes."""
    data = _voc(folder, classes=str(folder / "classes.txt"))
    split = folder / "ImageSets/Main/train.txt"
    sound = [(split, split.read_bytes()), (folder / "classes.txt", b"cat\ndog\nhorse\n")]
    written(folder, ("classes.txt", sound[1][1]))
    names = [
        "/etc/hostname",
        "../../../../etc/hostname",
        "a/../../a",
        "..",
        ".",
        "x" * 5000,
        "a\0b",
        "\x1b[2J",
        "a/" * 400,
        "C:\\Windows\\system.ini",
        "JPEGImages/../../../etc/hostname",
        "/etc/JPEGImages/../hostname -1",
        ".jpg",
        "JPEGImages/",
        "\\ 1",
        "a.jpg.png 0",
    ]
    hurtful: dict[str, bytes] = {f"an image named {name[:20]!r}": f"a\n{name}\n".encode() for name in names}
    return Site(sound, lambda _: _checked(data), lambda path: path.read_text().splitlines(), hurtful)


def coco(folder: Path) -> Site:
    """The annotation file."""
    _images(folder / "all")
    data = Data(dataset="coco", root=str(folder), train=["all"], val=["all"], classes="annotations")
    whole: dict[str, list[dict[str, Any]]] = {
        "images": [{"id": i, "file_name": f"{name}.jpg", "width": 60, "height": 40} for i, name in enumerate("ab")],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": i % 2, "category_id": 7, "bbox": [4, 5, 26, 30], "area": 780, "iscrowd": 0}
            for i in range(4)
        ],
    }
    places: dict[tuple[str, str], list[Any]] = {
        ("images", "file_name"): [
            "/etc/passwd",
            "../../x.jpg",
            "a\0",
            "\ud800.jpg",
            7,
            None,
            "",
            "y" * 9000,
            "a\nb.jpg",
        ],
        ("images", "id"): ["x", None, [1], 10**400, float("nan"), True, "1", 1.0, "9" * 4000, "²"],
        ("images", "width"): [10**400, "60", float("nan"), [60], -60],
        ("categories", "id"): [[7], None, "7", 9, 7.0],
        ("categories", "name"): [7, "", "c" * 9999, "x\ny", "\ud800", ["cat"]],
        ("annotations", "image_id"): [[1], 99, None, "0", 0.0, "٣"],
        ("annotations", "category_id"): [[7], {}, 3, None],
        ("annotations", "bbox"): [[1, 2, 10**400, 4], [1, 2, 3], "abcd", None, 7, [1, 2, float("inf"), 4], [[1]] * 4],
        ("annotations", "area"): ["big", float("nan"), None, -1, [1]],
        ("annotations", "ignore"): [[1], "x"],
        ("annotations", "iscrowd"): ["x", [0]],
    }
    hurtful = {
        f"{key} of {part}: {str(value)[:20]!r}": json.dumps(
            {**whole, part: [{**whole[part][0], key: value}, *whole[part][1:]]}
        ).encode()
        for (part, key), values in places.items()
        for value in values
    }
    hurtful |= {
        "nested deeply": b"[" * 200_000,
        "a number of 9,999 digits": b"9" * 9999,
        "images null": b'{"images":null}',
    }
    hurtful |= {
        f"{part} {value}": json.dumps({**whole, part: value}).encode() for part in whole for value in ([1], {"a": 1})
    }
    sound = written(folder, ("annotations/instances_all.json", json.dumps(whole, indent=1).encode()))
    return Site(sound, lambda _: _checked(data), lambda path: json.loads(path.read_bytes()), hurtful)


def _checked(data: Data) -> None:
    """As `python -m gan_kd check` and a training do."""
    problems = check(data).problems
    for problem in problems:
        assert str(problem).isprintable(), problem
        inside = Path(data.root) in (problem.file, *problem.file.parents)
        assert inside and ".." not in problem.file.parts, problem  # no other file was looked at
    if problems:
        raise UsageError(f"{len(problems)} problems, first {problems[0]}")


def _images(folder: Path) -> None:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name in "ab":
        cv2.imwrite(str(folder / f"{name}.jpg"), draw.integers(0, 255, (40, 60, 3), np.uint8))


def _voc(folder: Path, classes: str = "annotations") -> Data:
    _images(folder / "JPEGImages")
    for name in "ab":
        written(folder, (f"Annotations/{name}.xml", _annotation(folder, 2)[1]))
    for split in ("train", "val"):
        written(folder, (f"ImageSets/Main/{split}.txt", b"a\nb\n"))
    return Data(dataset="folder", root=str(folder), train=["train"], val=["val"], classes=classes)


def _annotation(folder: Path, objects: int) -> tuple[Path, bytes]:
    rows = "".join(_OBJECT.format("cat" if i % 2 else "dog", 1 + i % 9, 20 + i % 30) for i in range(objects))
    return folder / "Annotations/b.xml", _ANNOTATION.format(rows).encode()


def _entity(name: str, text: str) -> str:
    return f'<!ENTITY {name} "{text}">'


def _typed(entities: str, name: str) -> bytes:
    return (f"<!DOCTYPE a [{entities}]>" + _ANNOTATION.format(_OBJECT.format(name, 1, 9))).encode()
