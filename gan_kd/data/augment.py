"""Random colours, expansion, crop and mirroring of a training image, all drawn before the image is decoded.

The distributions are those of GluonCV's `SSDDefaultTrainTransform`, the field's usual training of one-stage detectors.
The code is new because GluonCV draws from the process-wide `random` and `np.random`: what becomes of an image then
depends on how many images the same process has drawn before, so neither a resumed run nor another number of workers
sees the same batches. Here every draw comes from a generator passed in.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from gan_kd.data.pixels import NORMALISE, Look, Window
from gan_kd.data.sizes import Size

_GREY = np.array([0.299, 0.587, 0.114])
_RGB_TO_YIQ = np.array([_GREY, [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
_YIQ_TO_RGB = np.array([[1.0, 0.956, 0.621], [1.0, -0.272, -0.647], [1.0, -1.107, 1.705]])

_MAX_EXPAND = 4.0
_CROP_MIN_IOU = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)  # of the window with every object; 0 accepts any window
_CROP_TRIALS = 50
_MIN_SCALE = 0.3  # of a window's sides to the canvas's
_INTERPOLATIONS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4)


def draw(
    label: np.ndarray, shape: Size, out: Size, rng: np.random.Generator, reducible: bool, whole: bool = False
) -> tuple[Look, np.ndarray]:
    """What becomes of an image of this shape: its look, and the label rows that are left, in output pixels.

    label: (M, 6) box, class, difficult. shape, out: (height, width) of the image and of what shows it, px. whole:
    mirroring alone, which networks learn sooner that start from random weights. reducible: whether the image can be
    decoded at a fraction of its size. It is, where the window has the output's size even so; the window is then widened
    to whole pixels of that fraction, by less than two output pixels, and the boxes are those of the wider window.
    """
    (height, width), (high, wide) = shape, out
    if whole:
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
    fits = (n for n in (8, 4, 2) if reducible and window[2] >= n * wide and window[3] >= n * high)
    reduction = next(fits, 1)
    if reduction > 1:
        window = _widened(window, reduction)
        left = _crop_label(label, np.array(window) + (x, y, 0, 0))
    mirror = rng.random() < 0.5
    left[:, [0, 2]] *= wide / window[2]
    left[:, [1, 3]] *= high / window[3]
    if mirror:
        left[:, [0, 2]] = wide - left[:, [2, 0]]
    x, y, width, height = (side // reduction for side in window)
    return Look(reduction, (x, y, width, height), interpolation, colour, mirror), left


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
