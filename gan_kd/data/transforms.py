"""From a decoded image and its boxes to a network's input: SSD's augmentations, or a plain resize.

The distributions are those of GluonCV's `SSDDefaultTrainTransform`, the field's usual training of these
networks. The code is new because GluonCV draws from the process-wide `random` and `np.random`: what becomes
of an image then depends on how many images the same process has drawn before, so neither a resumed run nor
another number of workers sees the same batches. Here every draw comes from a generator passed in.

All is drawn before the image is decoded, so that a JPEG can be decoded at a fraction of its size and nothing is
done for pixels that are cropped away or lie beside the image. Colours are changed by one matrix: brightness,
contrast, saturation, hue and normalisation are affine in a pixel's three values, and interpolation commutes with
affine maps. The canvas' mean colour is 0 then, and pixels are float32 from there on: what cubic and Lanczos
interpolation overshoot at an edge is kept, as in GluonCV.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from gan_kd.data.targets import SSDTargets

MEAN = np.array([0.485, 0.456, 0.406])  # ImageNet's RGB, as fractions of 255
STD = np.array([0.229, 0.224, 0.225])
NORMALISE = np.column_stack([np.diag(1 / (255 * STD)), -MEAN / STD])

_GREY = np.array([0.299, 0.587, 0.114])
_RGB_TO_YIQ = np.array([_GREY, [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
_YIQ_TO_RGB = np.array([[1.0, 0.956, 0.621], [1.0, -0.272, -0.647], [1.0, -1.107, 1.705]])

_MAX_EXPAND = 4.0
_CROP_MIN_IOU = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)  # of the window with every object; 0 accepts any window
_CROP_TRIALS = 50
_MIN_SCALE = 0.3  # of a window's sides to the canvas's
_INTERPOLATIONS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4)
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


class TrainTransform:
    """Random colours, expansion, crop, resize and mirroring of a training image, and its SSD targets.

    size: side of the square input in pixels; anchors: (A, 4) centre form in input pixels. Difficult objects
    are trained on like the others, as in GluonCV. augment: "ssd" for all of it, "flip" for mirroring alone, which
    networks learn sooner that start from random weights. Source: SSD (arXiv 1512.02325), section 2.2.
    """

    def __init__(self, size: int, anchors: np.ndarray, augment: str = "ssd") -> None:
        self.size = size
        self.whole = augment == "flip"
        self.targets = SSDTargets(anchors)

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """image: (H, W, 3) uint8 RGB; label: (M, 6) box, class, difficult; rng: source of all randomness.

        Returns the normalised image (3, S, S), class targets (A,) and box targets (A, 4), all float32.
        """
        pixels, label = self.augment(image, label, rng)
        return (pixels, *self.targets(label[:, :4], label[:, 4]))

    def augment(self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The augmented image (3, S, S) float32 and the label rows that are left, boxes in its pixels."""
        look, label = self.draw(label, image.shape[1], image.shape[0], rng, reducible=False)
        pixels = np.empty((3, self.size, self.size), np.float32)
        render(image, look, pixels)
        return pixels, label

    def draw(
        self, label: np.ndarray, width: int, height: int, rng: np.random.Generator, reducible: bool
    ) -> tuple[Look, np.ndarray]:
        """What becomes of an image of this size: its look, and the label rows that are left, in output pixels.

        reducible: whether the image can be decoded at a fraction of its size. It is, where the window has the
        output's size even so; the window is then widened to whole pixels of that fraction, by less than two
        output pixels, and the boxes are those of the wider window.
        """
        if self.whole:
            x = y = 0
            left, window = label.copy(), (0, 0, width, height)
            colour, interpolation = NORMALISE, cv2.INTER_LINEAR
        else:
            colour = random_colour(rng)
            (x, y), canvas = random_expand(width, height, rng)
            label = label + np.array([x, y, x, y, 0, 0], np.float32)
            left, window = random_crop(label, *canvas, rng)
            interpolation = _INTERPOLATIONS[int(rng.random() * len(_INTERPOLATIONS))]
        window = (window[0] - x, window[1] - y, window[2], window[3])
        reduction = next((n for n in (8, 4, 2) if reducible and min(window[2:]) >= n * self.size), 1)
        if reduction > 1:
            window = _widened(window, reduction)
            left = _crop_label(label, np.array(window) + (x, y, 0, 0))
        mirror = rng.random() < 0.5
        left[:, [0, 2]] *= self.size / window[2]
        left[:, [1, 3]] *= self.size / window[3]
        if mirror:
            left[:, [0, 2]] = self.size - left[:, [2, 0]]
        x, y, width, height = (side // reduction for side in window)
        return Look(reduction, (x, y, width, height), interpolation, colour, mirror), left


class ValTransform:
    """The whole image resized to a square and normalised, as GluonCV's `SSDDefaultValTransform` does it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: np.ndarray, label: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """image: (H, W, 3) uint8 RGB; the label is not needed, as boxes are compared in the image's pixels.

        Returns the normalised image (3, S, S) float32 and (W / S, H / S) float32, the factors from input
        pixels to the image's.
        """
        height, width = image.shape[:2]
        if height < self.size and width < self.size:
            interpolation = cv2.INTER_CUBIC
        elif height > self.size and width > self.size:
            interpolation = cv2.INTER_AREA
        else:
            interpolation = cv2.INTER_LINEAR
        pixels = cv2.resize(image, (self.size, self.size), interpolation=interpolation)
        pixels = cv2.transform(pixels.astype(np.float32), NORMALISE)
        return pixels.transpose(2, 0, 1), np.array([width / self.size, height / self.size], np.float32)


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """(3, 4) matrix that distorts the colours of an RGB pixel in 0..255 and normalises it.

    Each of four distortions happens half of the time; nothing is clipped to 0..255. GluonCV puts contrast
    before or after saturation and hue by chance; being a factor, it gives the same either way.
    """
    brighter, contrast, saturation, hue, *chances = rng.random(8).tolist()
    matrix = NORMALISE[:, :3]
    if chances[0] < 0.5:
        # 18 half turns, not 18 degrees, so any hue: GluonCV's networks were trained so, and so are ours.
        angle = (36 * hue - 18) * math.pi
        cos, sin = math.cos(angle), math.sin(angle)
        turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        matrix = matrix @ _YIQ_TO_RGB @ turn @ _RGB_TO_YIQ
    if chances[1] < 0.5:
        matrix = matrix @ ((0.5 + saturation) * np.eye(3) + (0.5 - saturation) * _GREY)
    if chances[2] < 0.5:
        matrix = matrix * (0.5 + contrast)
    colour = np.empty((3, 4))
    colour[:, :3] = matrix
    colour[:, 3] = NORMALISE[:, 3]
    if chances[3] < 0.5:
        colour[:, 3] += matrix.sum(axis=1) * (64 * brighter - 32)
    return colour


def random_expand(width: int, height: int, rng: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    """Half of the time a canvas up to four times as wide and high: the image's corner on it, and its size."""
    chance, ratio, x, y = rng.random(4).tolist()
    if chance < 0.5:
        return (0, 0), (width, height)
    ratio = 1 + (_MAX_EXPAND - 1) * ratio
    wide, high = int(width * ratio), int(height * ratio)
    return (int(x * (wide - width + 1)), int(y * (high - height + 1))), (wide, high)


def random_crop(label: np.ndarray, width: int, height: int, rng: np.random.Generator) -> tuple[np.ndarray, Window]:
    """A random window of a canvas that overlaps every object enough, and the objects centred in the window.

    label: (M, 6), boxes in canvas pixels. Returns the rows that are left, boxes clipped to the window and
    relative to its corner, and the window: the canvas if no object can be kept, as one without an area.

    GluonCV searches a window for each bound on the IoU, 50 trials each, and then draws among the found ones
    and the whole canvas until an object is left. Drawing the bound before searching is the same, but cheaper.
    """
    if not len(label):
        return label, _as_window(_random_windows(width, height, 1, rng)[:, 0])
    for choice in rng.permutation(len(_CROP_MIN_IOU) + 1).tolist():
        if choice == len(_CROP_MIN_IOU):
            window = np.array([0, 0, width, height])
        else:
            min_iou = _CROP_MIN_IOU[choice]
            windows = _random_windows(width, height, _CROP_TRIALS if min_iou else 1, rng)
            enough = _overlap(label[:, :4], windows, min_iou)
            first = int(enough.argmax())
            if not enough[first]:
                continue
            window = windows[:, first]
        left = _crop_label(label, window)
        if len(left):
            return left, _as_window(window)
    return label[:0], (0, 0, width, height)


def render(image: np.ndarray, look: Look, out: np.ndarray) -> None:
    """Write an image as it is to be shown into `out`, (3, S, S) float32.

    image: (H, W, 3) uint8, decoded at the look's reduction. Only output pixels that it reaches are calculated.
    """
    left, top, width, height = look.window
    size = out.shape[1]
    x0, x1, left0, left1 = _span(-left, image.shape[1] - left, width, size)
    y0, y1, top0, top1 = _span(-top, image.shape[0] - top, height, size)
    if (x1 - x0, y1 - y0) != (size, size):
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
    columns = slice(size - x1, size - x0) if look.mirror else slice(x0, x1)
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


def _random_windows(width: int, height: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """(4, count) windows of 0.3 to 1 times a canvas's sides and at most twice or half its aspect ratio."""
    scale, aspect, x, y = rng.random((4, count))
    scale = _MIN_SCALE + (1 - _MIN_SCALE) * scale
    square = scale * scale
    least = np.maximum(0.5, square)
    stretch = np.sqrt(least + (np.minimum(2, 1 / square) - least) * aspect)
    windows = np.empty((4, count), np.int64)
    windows[2] = np.clip(width * scale * stretch, 1, width)
    windows[3] = np.clip(height * scale / stretch, 1, height)
    # The place flush with the far edges is not drawn, as in GluonCV.
    windows[0] = x * np.maximum(width - windows[2], 1)
    windows[1] = y * np.maximum(height - windows[3], 1)
    return windows


def _overlap(boxes: np.ndarray, windows: np.ndarray, min_iou: float) -> np.ndarray:
    """(K,) bool: which of (4, K) windows have an IoU of at least this with every one of (M, 4) boxes."""
    left, top, width, height = windows
    x0, y0, x1, y1 = boxes.T[:, :, None]
    wide = np.minimum(x1, left + width) - np.maximum(x0, left)
    high = np.minimum(y1, top + height) - np.maximum(y0, top)
    shared = np.maximum(wide, 0) * np.maximum(high, 0)
    union = width * height + (x1 - x0) * (y1 - y0) - shared
    return (shared >= min_iou * union).all(axis=0)


def _crop_label(label: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The rows whose box has its centre and an area in the window, clipped to it, relative to its corner."""
    corner, size = window[:2].astype(np.float32), window[2:].astype(np.float32)
    label = label.copy()
    label[:, :2] -= corner
    label[:, 2:4] -= corner
    centre = (label[:, :2] + label[:, 2:4]) / 2
    label[:, :2] = np.maximum(label[:, :2], 0)
    label[:, 2:4] = np.minimum(label[:, 2:4], size)
    return label[((centre >= 0) & (centre < size) & (label[:, :2] < label[:, 2:4])).all(axis=1)]


def _widened(window: Window, step: int) -> Window:
    """The smallest window around this one with all sides at multiples of `step`."""
    left, top, width, height = window
    x0, y0 = left // step * step, top // step * step
    x1, y1 = -(-(left + width) // step) * step, -(-(top + height) // step) * step
    return x0, y0, x1 - x0, y1 - y0


def _as_window(row: np.ndarray) -> Window:
    left, top, width, height = row.tolist()
    return left, top, width, height
