"""The demo data set: pictures of coloured shapes, drawn from a seed, in the layout of PASCAL VOC.

It stands in for photographs where there are none: small enough to be drawn in seconds and learnt in minutes
from random weights, with what makes detection hard: texture, clutter, scale, rotation, occlusion.
"""

from __future__ import annotations

import colorsys
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np

from gan_kd.errors import RunError, UsageError
from gan_kd.system.untrusted import read_json

CLASSES = ("circle", "square", "star", "triangle")
_POLYGONS = {"circle": (72, [0.9]), "square": (4, [1.0]), "star": (10, [1.0, 0.45]), "triangle": (3, [1.0])}
STAMP = "demo.json"
_DRAWING = 6  # part of the stamp: raise it when the same settings give other pictures
_OVERSAMPLING = 2  # pictures are drawn this much larger, then averaged: smooth edges
_MARGIN = 16  # px of the canvas that a blurred shadow reaches beyond its shape
# Difficult: less than this fraction of its area in sight, or smaller than this fraction of the picture.
_DIFFICULT_VISIBLE, _DIFFICULT_SIDE = 0.5, 0.14


class Shape(NamedTuple):
    """One drawn object; `box` is xmin, ymin, xmax, ymax of its visible part, in pixels from 1 as in VOC."""

    name: str
    box: tuple[int, int, int, int]
    truncated: bool
    occluded: bool
    difficult: bool


def draw(root: Path, train: int, test: int, seed: int, size: int = 200) -> None:
    """Draw `train` + `test` pictures, the long side `size` px, into `root`, unless this very set is there.

    The files depend on the arguments alone. A set drawn with other settings is replaced; a folder that this
    function did not draw raises UsageError, one that cannot be written RunError. The set is drawn beside
    `root` and renamed: `root` never holds half of it.
    """
    stamp = {"drawing": _DRAWING, "train": train, "test": test, "seed": seed, "size": size}
    if _read_stamp(root) == stamp:
        return
    if _is_foreign(root):
        raise UsageError(f"{root}: not a drawn demo set; name an empty or new folder as data.root")
    beside = None
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
        _draw_set(beside, {"train": train, "test": test}, seed, size)
        (beside / STAMP).write_text(json.dumps(stamp) + "\n", encoding="utf-8")
        beside.chmod(0o755)
        if root.exists():
            shutil.rmtree(root)
        os.rename(beside, root)
    except OSError as error:
        if _read_stamp(root) != stamp:  # else another process drew the same set meanwhile
            raise RunError(f"{root}: the demo set cannot be drawn there ({error.strerror})") from error
    finally:
        if beside:
            shutil.rmtree(beside, ignore_errors=True)


def _is_foreign(root: Path) -> bool:
    if not root.is_dir():
        return root.exists()
    return _read_stamp(root) is None and any(root.iterdir())


def _read_stamp(root: Path) -> dict | None:
    try:
        return read_json(root / STAMP)
    except (OSError, ValueError):
        return None


def _draw_set(root: Path, splits: dict[str, int], seed: int, size: int) -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    for stream, (split, count) in enumerate(splits.items()):
        names = [f"{split}_{i:05d}" for i in range(count)]
        for i, name in enumerate(names):
            # a stream of random numbers per picture: a larger set begins with the pictures of a smaller one
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, i])))
            image, shapes = picture(rng, size)
            jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
            (root / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg.tobytes())
            (root / "Annotations" / f"{name}.xml").write_bytes(_annotation(name, image.shape, shapes))
        listed = root / "ImageSets" / "Main" / f"{split}.txt"
        listed.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _annotation(name: str, shape: tuple[int, ...], shapes: list[Shape]) -> bytes:
    root = ElementTree.Element("annotation")

    def add(parent: ElementTree.Element, tag: str, value: object) -> None:
        ElementTree.SubElement(parent, tag).text = str(value)

    add(root, "folder", "demo")
    add(root, "filename", f"{name}.jpg")
    size = ElementTree.SubElement(root, "size")
    for tag, value in zip(("height", "width", "depth"), shape):
        add(size, tag, value)
    for item in shapes:
        node = ElementTree.SubElement(root, "object")
        add(node, "name", item.name)
        for tag in ("truncated", "occluded", "difficult"):
            add(node, tag, int(getattr(item, tag)))
        box = ElementTree.SubElement(node, "bndbox")
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), item.box):
            add(box, tag, value)
    ElementTree.indent(root)
    return ElementTree.tostring(root) + b"\n"


def picture(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[Shape]]:
    """One picture, uint8 RGB (H, W, 3) with max(H, W) == size, and the shapes on it."""
    short = int(round(size * rng.uniform(0.72, 1.0)))
    height, width = (short, size) if rng.random() < 0.7 else (size, short)
    h, w = height * _OVERSAMPLING, width * _OVERSAMPLING
    canvas = _background(rng, h, w)
    owner = np.full((h, w), -1, np.int8)  # index of the shape that each pixel shows
    drawn: list[tuple[str, float, bool]] = []  # name, area in pixels of the canvas, cut by the border
    sides = list(rng.uniform(0.28, 0.42, rng.choice([1, 2, 3], p=[0.5, 0.4, 0.1])))
    sides = sorted(sides, reverse=True)  # the smaller ones in front
    if rng.random() < 0.12:
        sides.append(rng.uniform(0.08, 0.13))
    visible = 0.35 if rng.random() < 0.25 else 0.85  # so much of every shape is in sight
    for side in sides:
        name = CLASSES[rng.integers(len(CLASSES))]
        points = _place(rng, name, side * short * _OVERSAMPLING, owner, [area for _, area, _ in drawn], visible)
        if points is not None:
            low, high = points.min(0), points.max(0)
            cut = bool((low < 0).any() or (high > [w - 1, h - 1]).any())
            _paint(rng, canvas, owner, points, len(drawn), name)
            drawn.append((name, float(cv2.contourArea(points.astype(np.float32))), cut))
    image: np.ndarray = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    image += rng.normal(0, rng.uniform(1, 6), image.shape).astype(np.float32)  # the grain of a camera
    shapes = [_label(owner, k, *item) for k, item in enumerate(drawn)]
    return image.clip(0, 255).round().astype(np.uint8), shapes


def _label(owner: np.ndarray, k: int, name: str, area: float, cut: bool) -> Shape:
    ys, xs = np.nonzero(owner == k)
    x0, y0, x1, y1 = (int(v) // _OVERSAMPLING + 1 for v in (xs.min(), ys.min(), xs.max(), ys.max()))
    visible = len(xs) / area
    side = max(x1 - x0, y1 - y0) / (max(owner.shape) / _OVERSAMPLING)
    difficult = visible < _DIFFICULT_VISIBLE or side < _DIFFICULT_SIDE
    return Shape(name, (x0, y0, x1, y1), cut, visible < 0.95 and not cut, difficult)


def _place(
    rng: np.random.Generator, name: str, side: float, owner: np.ndarray, areas: list[float], visible: float
) -> np.ndarray | None:
    """Corners (K, 2) of a shape `side` px wide, where `visible` of it and of those before it is left to see."""
    h, w = owner.shape
    for _ in range(12):
        outline = _outline(name) * [rng.uniform(0.85, 1.0), 1.0] * (side / 2)
        angle = rng.normal(0, 0.2)
        outline = outline @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        reach = np.abs(outline).max(0)  # px from the centre
        if rng.random() < 0.15:
            reach = reach * 0.5  # may stick out of the picture
        points = outline + reach + rng.random(2) * np.maximum(np.array([w, h]) - 2 * reach, 0)
        mask = _mask(points, owner.shape)
        seen = [np.count_nonzero((owner == k) & (mask == 0)) / area for k, area in enumerate(areas)]
        seen.append(np.count_nonzero(mask) / cv2.contourArea(points.astype(np.float32)))
        if min(seen) > visible:
            return points
    return None


def _outline(name: str) -> np.ndarray:
    """Corners (K, 2) of the shape, upright, at most 1 from its centre."""
    corners, radii = _POLYGONS[name]
    turn = 2 * np.pi * np.arange(corners) / corners - np.pi / 2
    return np.stack([np.cos(turn), np.sin(turn)], 1) * np.resize(radii, corners)[:, None]


def _mask(points: np.ndarray, shape: tuple[int, ...], value: int = 255) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], (value,), shift=4)
    return mask


def _paint(
    rng: np.random.Generator, canvas: np.ndarray, owner: np.ndarray, points: np.ndarray, k: int, name: str
) -> None:
    """Draw a shape with its shadow and dark edge into `canvas`, and its index into `owner`, both in place."""
    span = float(np.ptp(points, axis=0).max())
    low = np.maximum(points.min(0).astype(int) - _MARGIN, 0)
    high = (points.max(0) + 0.05 * span).astype(int) + _MARGIN
    window = slice(low[1], high[1]), slice(low[0], high[0])  # all that the shape and its shadow touch
    canvas, owner, points = canvas[window], owner[window], points - low
    shadow = cv2.blur(cv2.blur(_mask(points + 0.05 * span, owner.shape, 90), (11, 11)), (11, 11))
    canvas *= 1 - shadow[..., None].astype(np.float32) / 255
    # A class has its own range of hues: networks that start from random weights learn colours before corners.
    hue = (CLASSES.index(name) + rng.uniform(-0.3, 0.3)) / len(CLASSES)
    body = _colour(hue, rng.uniform(0.7, 1.0), rng.uniform(0.7, 1.0))
    fill = body * (1.1 - rng.uniform(0.1, 0.35) * _field(rng, *owner.shape)[..., None])
    edge = [np.round(points * 16).astype(np.int32)]
    cv2.polylines(fill, edge, True, (body * 0.45).tolist(), max(2, int(span * 0.045)), cv2.LINE_AA, shift=4)
    inside = _mask(points, owner.shape) > 0
    canvas[inside] = fill[inside]
    owner[inside] = k


def _background(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """float32 RGB (h, w, 3) in 0..255: a texture of two like colours with thin lines and dots on it."""
    # Pale and soft beside the shapes: networks that start from random weights must find these within minutes.
    dark = rng.uniform(0.35, 0.75)
    light = dark + rng.uniform(0.05, 0.2)
    hue, saturation = rng.random(), rng.uniform(0.05, 0.25)
    first, second = _colour(hue, saturation, dark), _colour(hue + rng.uniform(-0.08, 0.08), saturation, light)
    t = (0.75 * _field(rng, h, w) + 0.25 * _field(rng, h, w))[..., None]
    canvas = first * (1 - t) + second * t
    for _ in range(rng.integers(0, 14)):
        colour = _colour(hue + rng.uniform(-0.12, 0.12), saturation, dark + rng.uniform(-0.15, 0.2)).tolist()
        a = (rng.random(2) * [w, h]).astype(int)
        if rng.random() < 0.5:
            b = a + rng.normal(0, 0.25 * w, 2).astype(int)
            cv2.line(canvas, a.tolist(), b.tolist(), colour, int(rng.integers(1, 5)), cv2.LINE_AA)
        else:
            axes = (rng.uniform(0.01, 0.04, 2) * w).astype(int).tolist()
            cv2.ellipse(canvas, a.tolist(), axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    return canvas


def _field(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """A random texture: float32 (h, w) in 0..1, a gradient, stripes, checks or clouds."""
    y = np.arange(h, dtype=np.float32)[:, None] / max(h, w) - 0.5
    x = np.arange(w, dtype=np.float32) / max(h, w) - 0.5
    angle = np.float32(rng.uniform(0, 2 * np.pi))
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:
        field = along + 0.5
    elif kind == 3:
        cells = int(rng.integers(3, 24))
        noise = rng.random((cells, cells)).astype(np.float32)
        field = cv2.resize(noise, (w, h), interpolation=cv2.INTER_CUBIC)
    else:
        field = np.sin(along * 2 * np.pi * rng.uniform(3, 14)) * 3
        field = (field if kind == 1 else field * np.sign(across * rng.uniform(3, 14) % 1 - 0.5)) * 0.5 + 0.5
    return field.clip(0, 1).astype(np.float32)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """float32 (3,) RGB in 0..255."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32) * 255
