"""Class names in any script: the font that has them, or their numbers and what to install; images of any shape."""

from __future__ import annotations

import logging
import warnings

import cv2
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from gan_kd.detection import pictures
from gan_kd.report import attention, fonts, photos, plots
from gan_kd.report.run import Network


@pytest.fixture
def no_cjk(monkeypatch):
    """A machine whose only further fonts are those that a test adds."""
    installed: dict[str, str] = {}
    monkeypatch.setattr(fonts, "_installed", lambda: dict(installed))
    monkeypatch.setattr(fonts, "_told", set())
    fonts._further.cache_clear()
    yield installed
    fonts._further.cache_clear()


@pytest.fixture
def cat_font(no_cjk, tmp_path):
    """A font with a black square for 猫, and digits."""
    from matplotlib.font_manager import fontManager

    pen = TTGlyphPen(None)
    for move, point in (("moveTo", (0, 0)), ("lineTo", (0, 900)), ("lineTo", (900, 900)), ("lineTo", (900, 0))):
        getattr(pen, move)(point)
    pen.closePath()
    square = pen.glyph()
    names = [".notdef", "cat", *(f"d{digit}" for digit in range(10)), "space"]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({0x732B: "cat", 0x20: "space", **{0x30 + digit: f"d{digit}" for digit in range(10)}})
    builder.setupGlyf({name: square for name in names})
    builder.setupHorizontalMetrics({name: (1000, 0) for name in names})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Square Cats", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, sTypoDescender=-100)
    builder.setupPost()
    file = tmp_path / "cats.ttf"
    builder.save(file)
    before = list(fontManager.ttflist)
    fontManager.addfont(str(file))
    no_cjk["Square Cats"] = str(file)
    yield str(file)
    fontManager.ttflist[:] = before


def test_names_that_the_usual_font_has_stay_with_it(no_cjk):
    for name in ("cat", "ciré", "кошка", "γάτα", "قطة"):
        assert fonts.readable(name) == name
        assert fonts.style_for([name]) == {"font.family": [fonts.NORMAL]}
        assert fonts.for_pillow(name)[0].endswith("DejaVuSans-Bold.ttf")


def test_another_font_is_found(cat_font):
    assert fonts.readable("猫") == "猫"
    assert fonts.style_for(["dog", "猫"]) == {"font.family": [fonts.NORMAL, "Square Cats"]}
    assert fonts.for_pillow("猫 90") == (cat_font, "猫 90")


def test_installed_fonts_are_looked_through():
    assert fonts._installed() and fonts.NORMAL not in fonts._installed()


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("猫", "Noto Sans CJK (Debian: fonts-noto-cjk)"),
        ("\u0d15", "Noto (Debian: fonts-noto-core)"),
        ("\U0001f9ed", "Symbola (Debian: fonts-symbola)"),
    ],
)
def test_letters_that_no_font_has_are_numbers_and_one_sentence(no_cjk, caplog, name, package):
    with caplog.at_level(logging.WARNING, "gan_kd"):
        assert [fonts.readable(f"{name} a") for _ in range(2)] == [f"U+{ord(name):04X} a"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        f"no font here has '{name}' of a class name, so pictures show its number: install {package}"
    ]


def sample(path, size=(60, 40)):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    box = [0, 0, size[0] - 1, size[1] - 1]
    return {"path": path, "width": size[0], "height": size[1], "gt": [[*box, 0, 0]],
            "detections": {"teacher": [[*box, 0, 0.9]]}}  # fmt: skip


def test_every_picture_is_drawn_without_a_warning(cat_font, tmp_path):
    found = np.array([[5, 20, 50, 38, 0, 0.9]], np.float32)
    network = Network("teacher", True, [], [], {}, {"ap": {"猫": 50.0, "dog": 40.0}})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert photos.draw(("ground truth", "teacher"), [sample(tmp_path / "a.png")], ["猫"], tmp_path / "a.jpg")
        assert plots.class_bars([network], tmp_path / "bars.png")
        drawn = pictures.draw(np.zeros((40, 60, 3), np.uint8), found, ["猫"])
    assert (drawn == 255).any()  # the letter is white


def test_without_a_font_pictures_are_drawn_without_a_warning(no_cjk, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert photos.draw(("ground truth",), [sample(tmp_path / "a.png")], ["猫"], tmp_path / "a.jpg")
        pictures.draw(np.zeros((40, 60, 3), np.uint8), np.array([[5, 20, 50, 38, 0, 0.9]]), ["猫"])


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (5000, 3), (3, 5000)])
def test_images_of_extreme_shape_are_drawn(tmp_path, size):
    example = sample(tmp_path / "a.png", size)
    assert photos.draw(("ground truth", "teacher"), [example], ["cat"], tmp_path / "a.jpg")
    maps = {"teacher": [attention_map()]}
    assert attention.draw(["teacher"], [{**example, "attention": maps}], tmp_path / "b.jpg")
    box = np.array([example["detections"]["teacher"][0]])
    image = cv2.imread(str(tmp_path / "a.png"))
    assert pictures.draw(image, box, ["cat"]).shape == image.shape


def attention_map():
    return [np.arange(4, dtype=np.uint8).tobytes().hex() for _ in range(4)]
