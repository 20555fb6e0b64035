"""From a decoded image to a network's input: how it is to be shown, and the pixels of that; or a plain resize.

A JPEG can be decoded at a fraction of its size, and nothing is done for pixels that are cropped away or lie beside the
image. Colours are changed by one matrix: brightness, contrast, saturation, hue and normalisation are affine in a
pixel's three values, and interpolation commutes with affine maps. The canvas' mean colour is 0 then, and pixels are
float32 from there on: what cubic and Lanczos interpolation overshoot at an edge is kept, as in GluonCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from gan_kd.data.batch import Array, Sample
from gan_kd.data.sizes import Sizes

MEAN = np.array([0.485, 0.456, 0.406])  # ImageNet's RGB, as fractions of 255
STD = np.array([0.229, 0.224, 0.225])
NORMALISE = np.column_stack([np.diag(1 / (255 * STD)), -MEAN / STD])

_REACH = 5  # px: no interpolation looks further
_OFF = 1 / 32  # of an output pixel: how far off its place an image on a canvas may be shown

Window = tuple[int, int, int, int]  # left, top, width, height in whole pixels


class Look(NamedTuple):
    """How an image is to be shown, as drawn for it."""

    reduction: int  # 1, 2, 4 or 8: the image is to be decoded at this fraction of its size
    window: Window  # in pixels of the image so decoded; where it reaches past the image, the mean colour is shown
    interpolation: int  # OpenCV's number
    colour: np.ndarray  # (3, 4) matrix as of `random_colour`
    mirror: bool


class ValTransform:
    """The whole image resized and normalised, as GluonCV's `SSDDefaultValTransform` does it.

    sizes: what an image is resized to; where a batch is larger, 0 (the mean colour) is right and below of it.
    """

    images = 1

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """image: (H, W, 3) uint8 RGB.

        Returns the normalised image (3, h, w) float32, as a batch of its own, and (2,) float32 the factors from
        input pixels to the image's, of x and of y.
        """
        shapes = np.array([image.shape[:2]])
        pixels = np.empty((3, *self.sizes.of_batch(shapes, (0, 0, 0))), np.float32)
        self._show(image, pixels)
        return pixels, self.factors(image.shape[1], image.shape[0]).astype(np.float32)

    def factors(self, width: int, height: int) -> np.ndarray:
        """(2,) float64: image pixels of an image of this size for an input pixel, along x and along y."""
        return np.array([width, height]) / self.sizes.extents(np.array([[height, width]]))[0, ::-1]

    def arrays(self, height: int, width: int, objects: int) -> list[Array]:
        """None: boxes are compared in the image's pixels."""
        return []

    def write(self, sample: Sample, rng: np.random.Generator, image: np.ndarray, targets: Sequence[np.ndarray]) -> None:
        """Write a sample's image into (3, H, W)."""
        self._show(sample.image(), image)

    def _show(self, image: np.ndarray, out: np.ndarray) -> None:
        height, width = self.sizes.extents(np.array([image.shape[:2]]))[0].tolist()
        if out.shape[1:] != (height, width):
            out[:] = 0
        if image.shape[0] < height and image.shape[1] < width:
            interpolation = cv2.INTER_CUBIC
        elif image.shape[0] > height and image.shape[1] > width:
            interpolation = cv2.INTER_AREA
        else:
            interpolation = cv2.INTER_LINEAR
        pixels = cv2.resize(image, (width, height), interpolation=interpolation)
        pixels = cv2.transform(pixels.astype(np.float32), NORMALISE)
        out[:, :height, :width] = pixels.transpose(2, 0, 1)


def render(image: np.ndarray, look: Look, out: np.ndarray) -> None:
    """Write an image as it is to be shown into `out`, (3, H, W) float32.

    image: (H, W, 3) uint8, decoded at the look's reduction. Only output pixels that it reaches are calculated.
    """
    left, top, width, height = look.window
    high, wide = out.shape[1:]
    x0, x1, left0, left1 = _span(-left, image.shape[1] - left, width, wide)
    y0, y1, top0, top1 = _span(-top, image.shape[0] - top, height, high)
    if (x1 - x0, y1 - y0) != (wide, high):
        out[:] = 0
    if x0 == x1 or y0 == y1:
        return
    pixels = _cut(image, (left + left0, top + top0, left1 - left0, top1 - top0), look.colour)
    # Mirrored while it is small; but of two pixels the nearest is the left one, which must be so before mirroring.
    nearest = look.interpolation == cv2.INTER_NEAREST
    if look.mirror and not nearest:
        pixels = cv2.flip(pixels, 1)
    pixels = cv2.resize(pixels, (x1 - x0, y1 - y0), interpolation=look.interpolation)
    if look.mirror and nearest:
        pixels = cv2.flip(pixels, 1)
    columns = slice(wide - x1, wide - x0) if look.mirror else slice(x0, x1)
    cv2.split(pixels, [plane[y0:y1, columns] for plane in out])


def _span(first: int, last: int, length: int, size: int) -> tuple[int, int, int, int]:
    """Of `size` output pixels that show `length` pixels those that show any of first..last, and what they show.

    Returns output pixels x0..x1 and whole pixels a..b, so that showing a..b at x0..x1 is the same as showing
    0..length at 0..size but for `_OFF`. Pixels are taken as empty beside first..last.
    """
    if first <= 0 and last >= length:
        return 0, size, 0, length
    edges = np.arange(size + 1) * (length / size)
    whole = np.rint(edges)
    usable = np.flatnonzero(np.abs(edges - whole) <= _OFF * length / size)  # 0 and `size` are among them
    edges = edges[usable]
    start = max(int(edges.searchsorted(first - _REACH, "right")) - 1, 0)
    end = min(int(edges.searchsorted(last + _REACH)), len(usable) - 1)
    x0, x1 = int(usable[start]), int(usable[end])
    return x0, max(x0, x1), int(whole[x0]), int(whole[x1])


def _cut(image: np.ndarray, window: Window, colour: np.ndarray) -> np.ndarray:
    """The pixels of a window, (height, width, 3) float32, their colours changed; 0 where it leaves the image."""
    left, top, width, height = window
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = max(min(left + width, image.shape[1]), x0), max(min(top + height, image.shape[0]), y0)
    inside = image[y0:y1, x0:x1].astype(np.float32)
    if (x1 - x0, y1 - y0) == (width, height):
        return cv2.transform(inside, colour)
    pixels: np.ndarray = np.zeros((height, width, 3), np.float32)
    if inside.size:
        cv2.transform(inside, colour, dst=pixels[y0 - top : y1 - top, x0 - left : x1 - left])
    return pixels
