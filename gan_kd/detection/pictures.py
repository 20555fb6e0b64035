"""Detections drawn into images of full size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gan_kd.report.fonts import for_pillow
from gan_kd.report.photos import PALETTE

_PART = 1 / 32  # of the mean side: height of the text
_LEAST = 11  # px: smaller text cannot be read


def draw(image: np.ndarray, found: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """A copy of an image, uint8 RGB (H,W,3), with the boxes, classes and scores in percent of its detections.

    found: (K,6) x0, y0, x1, y1, class, score in its pixels; the highest score lies on top. Lines and text grow with
    the image. Class names may be of any script, see `gan_kd.report.fonts`.
    """
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    size = max(_LEAST, round(min(sum(picture.size) / 2 * _PART, min(picture.size) / 3)))
    line = max(2, round(size / 6))
    for x0, y0, x1, y1, label, score in found[np.argsort(found[:, 5], kind="stable")].tolist():
        colour = PALETTE[int(label) % len(PALETTE)]
        pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=line)
        file, text = for_pillow(f"{classes[int(label)]} {100 * score:.0f}")
        _label(pen, (x0, y0), text, _font(file, size), colour, picture.size)
    return np.asarray(picture)


def _label(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont,
    colour: str,
    size: tuple[int, int],
) -> None:
    """The text on its colour above the corner, or below where no room is; always inside the picture."""
    margin = font.size / 5
    ascent, descent = font.getmetrics()
    width, height = font.getlength(text) + 2 * margin, ascent + descent
    x = max(0.0, min(corner[0], size[0] - width))
    y = corner[1] - height if corner[1] >= height else min(corner[1], size[1] - height)
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + margin, y), text, font=font, fill="white")


@lru_cache
def _font(file: str, height: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, height)
