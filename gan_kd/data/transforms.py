"""From a decoded image and its boxes to a network's input: SSD's augmentations, or a plain resize.

The distributions are those of GluonCV's `SSDDefaultTrainTransform`, the field's usual training of these
networks. The code is new because GluonCV draws from the process-wide `random` and `np.random`: what becomes
of an image then depends on how many images the same process has drawn before, so neither a resumed run nor
another number of workers sees the same batches. Here every draw comes from a generator passed in.

Colours are changed last, at the output's size and by one matrix: brightness, contrast, saturation, hue and
normalisation are affine in a pixel's three values, and interpolation commutes with affine maps.
"""

from __future__ import annotations

import math

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
_INTERPOLATIONS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4)
_OVERSHOOTING = (cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)

Window = tuple[int, int, int, int]  # left, top, width, height in whole pixels


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
        if self.whole:
            x = y = left = top = 0
            height, width = image.shape[:2]
            label, colour, interpolation = label.copy(), NORMALISE, cv2.INTER_LINEAR
        else:
            colour = random_colour(rng)
            (x, y), canvas = random_expand(image.shape[1], image.shape[0], rng)
            label = label + np.array([x, y, x, y, 0, 0], np.float32)
            label, (left, top, width, height) = random_crop(label, *canvas, rng)
            interpolation = _INTERPOLATIONS[rng.integers(len(_INTERPOLATIONS))]
        mirror = rng.random() < 0.5
        label[:, [0, 2]] *= self.size / width
        label[:, [1, 3]] *= self.size / height
        if mirror:
            label[:, [0, 2]] = self.size - label[:, [2, 0]]
        window = (left - x, top - y, width, height)
        return render(image, window, self.size, interpolation, colour, mirror), label


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
        return _to_input(pixels, NORMALISE), np.array([width / self.size, height / self.size], np.float32)


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """(3, 4) matrix that distorts the colours of an RGB pixel in 0..255 and normalises it.

    Each of four distortions happens half of the time; nothing is clipped to 0..255. GluonCV puts contrast
    before or after saturation and hue by chance; being a factor, it gives the same either way.
    """
    brighter = rng.uniform(-32, 32) if rng.random() < 0.5 else 0.0
    matrix = np.eye(3)
    if rng.random() < 0.5:
        matrix *= rng.uniform(0.5, 1.5)  # contrast
    if rng.random() < 0.5:
        saturation = rng.uniform(0.5, 1.5)
        matrix = matrix @ (saturation * np.eye(3) + (1 - saturation) * _GREY)
    if rng.random() < 0.5:
        # 18 half turns, not 18 degrees, so any hue: GluonCV's networks were trained so, and so are ours.
        angle = rng.uniform(-18, 18) * math.pi
        cos, sin = math.cos(angle), math.sin(angle)
        turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        matrix = _YIQ_TO_RGB @ turn @ _RGB_TO_YIQ @ matrix
    distorted = np.column_stack([matrix, matrix.sum(axis=1) * brighter])
    colour = NORMALISE[:, :3] @ distorted
    colour[:, 3] += NORMALISE[:, 3]
    return colour


def random_expand(width: int, height: int, rng: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    """Half of the time a canvas up to four times as wide and high: the image's corner on it, and its size."""
    if rng.random() < 0.5:
        return (0, 0), (width, height)
    ratio = rng.uniform(1, _MAX_EXPAND)
    wide, high = int(width * ratio), int(height * ratio)
    return (int(rng.integers(wide - width + 1)), int(rng.integers(high - height + 1))), (wide, high)


def random_crop(label: np.ndarray, width: int, height: int, rng: np.random.Generator) -> tuple[np.ndarray, Window]:
    """A random window of a canvas that overlaps every object enough, and the objects centred in the window.

    label: (M, 6), boxes in canvas pixels. Returns the rows that are left, boxes clipped to the window and
    relative to its corner, and the window: the canvas if no object can be kept, as one without an area.

    GluonCV searches a window for each bound on the IoU, 50 trials each, and then draws among the found ones
    and the whole canvas until an object is left. Drawing the bound before searching is the same, but cheaper.
    """
    if not len(label):
        return label, _as_window(_random_windows(width, height, 1, rng)[0])
    for choice in rng.permutation(len(_CROP_MIN_IOU) + 1):
        if choice == len(_CROP_MIN_IOU):
            windows = np.array([[0, 0, width, height]])
        else:
            min_iou = _CROP_MIN_IOU[choice]
            windows = _random_windows(width, height, _CROP_TRIALS if min_iou else 1, rng)
            windows = windows[_least_iou(label[:, :4], windows) >= min_iou]
        left = _crop_label(label, windows[0]) if len(windows) else label[:0]
        if len(left):
            return left, _as_window(windows[0])
    return label[:0], (0, 0, width, height)


def render(
    image: np.ndarray, window: Window, size: int, interpolation: int, colour: np.ndarray, mirror: bool
) -> np.ndarray:
    """A window of an image, resized, mirrored and with its colours changed: (3, size, size) float32.

    image: (H, W, 3) uint8; window: in the image's pixels, where it reaches past the image the result is 0,
    the mean colour; interpolation: OpenCV's number; colour: (3, 4) matrix as of `random_colour`.
    """
    # As bytes, what cubic and Lanczos interpolation overshoot at an edge would be cut off.
    pixels = _cut(image, window, np.float32 if interpolation in _OVERSHOOTING else np.uint8)
    pixels = cv2.resize(pixels, (size, size), interpolation=interpolation)
    return _to_input(cv2.flip(pixels, 1) if mirror else pixels, colour)


def _cut(image: np.ndarray, window: Window, dtype: type) -> np.ndarray:
    """The pixels of a window; where it leaves the image, with a fourth channel, 255 on it and 0 beside it.

    Colours beside the image are 0 as well, and stay so if the colour matrix's constants go by that channel.
    """
    left, top, width, height = window
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = max(min(left + width, image.shape[1]), x0), max(min(top + height, image.shape[0]), y0)
    inside = image[y0:y1, x0:x1]
    if inside.shape[:2] == (height, width):
        return inside.astype(dtype, copy=False)
    pixels: np.ndarray = np.zeros((height, width, 4), dtype)
    target = pixels[y0 - top : y1 - top, x0 - left : x1 - left]
    target[..., :3] = inside
    target[..., 3] = 255
    return pixels


def _to_input(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """(S, S, 3 or 4) pixels through a (3, 4) colour matrix to (3, S, S) float32."""
    if pixels.shape[2] == 4:  # a fourth, idle row: OpenCV is seven times as fast on 4 -> 4 as on 4 -> 3
        colour = np.vstack([colour, np.zeros(4)]) * (1, 1, 1, 1 / 255)
    return cv2.transform(pixels.astype(np.float32, copy=False), colour)[..., :3].transpose(2, 0, 1)


def _random_windows(width: int, height: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 4) windows of 0.3 to 1 times a canvas's sides and at most twice or half its aspect ratio."""
    scale = rng.uniform(0.3, 1, count)
    stretch = np.sqrt(rng.uniform(np.maximum(0.5, scale**2), np.minimum(2, 1 / scale**2)))
    canvas = np.array([width, height])
    size = (canvas * np.column_stack([scale * stretch, scale / stretch])).astype(np.int64)
    size = np.clip(size, 1, canvas)
    # The place flush with the far edges is not drawn, as in GluonCV.
    return np.concatenate([rng.integers(0, np.maximum(canvas - size, 1)), size], axis=1)


def _least_iou(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """(K,) the smallest of a window's IoUs with (M, 4) boxes, for (K, 4) windows."""
    corner, size = windows[:, None, :2], windows[:, None, 2:]
    overlap = np.minimum(boxes[:, 2:], corner + size) - np.maximum(boxes[:, :2], corner)
    shared = np.maximum(overlap, 0).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return (shared / (size.prod(axis=2) + area - shared)).min(axis=1)


def _crop_label(label: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The rows whose box has its centre and an area in the window, clipped to it, relative to its corner."""
    corner, size = window[:2].astype(np.float32), window[2:].astype(np.float32)
    label = label.copy()
    label[:, :4] -= np.tile(corner, 2)
    centre = (label[:, :2] + label[:, 2:4]) / 2
    label[:, :2] = np.maximum(label[:, :2], 0)
    label[:, 2:4] = np.minimum(label[:, 2:4], size)
    return label[((centre >= 0) & (centre < size) & (label[:, :2] < label[:, 2:4])).all(axis=1)]


def _as_window(row: np.ndarray) -> Window:
    left, top, width, height = row.tolist()
    return left, top, width, height
