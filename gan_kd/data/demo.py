"""The demo data set: pictures of coloured shapes, drawn from a seed, in the layout of PASCAL VOC.

It stands in for photographs where there are none: small enough to be drawn in seconds and learnt in minutes from random
weights, with what makes detection hard all the same (texture, clutter, scale, rotation, occlusion, truncation).
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

from gan_kd.errors import UsageError

CLASSES = ("circle", "cross", "square", "star", "triangle")
STAMP = "demo.json"
_DRAWING = 1  # part of the stamp: raise it when the same settings give other pictures
_OVERSAMPLING = 2  # pictures are drawn this much larger, then averaged: smooth edges
_DIFFICULT_VISIBLE, _DIFFICULT_SIDE = 0.5, 0.14  # below these fractions (of its area, of the long side): difficult


class Shape(NamedTuple):
    """One drawn object: `box` is xmin, ymin, xmax, ymax of its visible part in 1-based pixels, as VOC counts."""

    name: str
    box: tuple[int, int, int, int]
    truncated: bool
    occluded: bool
    difficult: bool


def draw(root: Path, train: int, test: int, seed: int, size: int = 200) -> None:
    """Draw `train` + `test` pictures with a long side of `size` px into `root`, unless this very set is there already.

    The files depend on the arguments alone. A set drawn with other settings is replaced; a folder that this function did
    not draw raises UsageError. The set is drawn beside `root` and renamed, so that `root` never holds half of it.
    """
    stamp = {"drawing": _DRAWING, "train": train, "test": test, "seed": seed, "size": size}
    if _read_stamp(root) == stamp:
        return
    if root.exists() and _read_stamp(root) is None and any(root.iterdir()):
        raise UsageError(f"{root} holds files that are not a drawn demo set; name an empty or new folder as data.root.")
    root.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        _draw_set(beside, {"train": train, "test": test}, seed, size)
        (beside / STAMP).write_text(json.dumps(stamp) + "\n")
        beside.chmod(0o755)
        if root.exists():
            shutil.rmtree(root)
        os.rename(beside, root)
    except OSError:
        if _read_stamp(root) != stamp:  # else another process drew the same set meanwhile
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _read_stamp(root: Path) -> dict | None:
    try:
        return json.loads((root / STAMP).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _draw_set(root: Path, splits: dict[str, int], seed: int, size: int) -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for stream, (split, count) in enumerate(splits.items()):
        names = [f"{split}_{i:05d}" for i in range(count)]
        for i, name in enumerate(names):
            # a stream of random numbers per picture: a larger set begins with the pictures of a smaller one
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, i])))
            image, shapes = picture(rng, size)
            jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
            (root / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg.tobytes())
            (root / "Annotations" / f"{name}.xml").write_bytes(_annotation(name, image.shape, shapes))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


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
    hue = rng.random()
    canvas = _background(rng, h, w, hue)
    owner = np.full((h, w), -1, np.int8)  # index of the shape that each pixel shows
    drawn: list[tuple[str, float, bool]] = []  # name, area in pixels of the canvas, cut by the border
    sides = list(rng.uniform(0.25, 0.70, rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2])))
    sides = sorted(sides, reverse=True)  # the smaller ones in front
    if rng.random() < 0.12:
        sides.append(rng.uniform(0.08, 0.13))
    for side in sides:
        name = CLASSES[rng.integers(len(CLASSES))]
        points = _place(rng, name, side * short * _OVERSAMPLING, owner, [area for _, area, _ in drawn])
        if points is not None:
            low, high = points.min(0), points.max(0)
            cut = bool((low < 0).any() or (high > [w - 1, h - 1]).any())
            _paint(rng, canvas, owner, points, len(drawn), hue)
            drawn.append((name, float(cv2.contourArea(points.astype(np.float32))), cut))
    image = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    image += rng.normal(0, rng.uniform(1, 6), image.shape).astype(np.float32)  # the grain of a camera
    return image.clip(0, 255).round().astype(np.uint8), [_label(owner, k, *item) for k, item in enumerate(drawn)]


def _label(owner: np.ndarray, k: int, name: str, area: float, cut: bool) -> Shape:
    ys, xs = np.nonzero(owner == k)
    box = tuple(int(v) // _OVERSAMPLING + 1 for v in (xs.min(), ys.min(), xs.max(), ys.max()))
    visible = len(xs) / area
    side = max(box[2] - box[0], box[3] - box[1]) / (max(owner.shape) / _OVERSAMPLING)
    return Shape(name, box, cut, visible < 0.95 and not cut, visible < _DIFFICULT_VISIBLE or side < _DIFFICULT_SIDE)


def _place(rng: np.random.Generator, name: str, side: float, owner: np.ndarray, areas: list[float]) -> np.ndarray | None:
    """Corners (K, 2) of a shape `side` px wide, at a place that leaves enough to see of it and of those before it."""
    h, w = owner.shape
    for _ in range(12):
        outline = _outline(name) * [rng.uniform(0.85, 1.0), 1.0] * (side / 2)
        angle = rng.uniform(0, 2 * np.pi)
        outline = outline @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        reach = np.abs(outline).max(0)  # px from the centre
        if rng.random() < 0.15:
            reach = reach * 0.5  # may stick out of the picture
        points = outline + reach + rng.random(2) * np.maximum(np.array([w, h]) - 2 * reach, 0)
        mask = _mask(points, owner.shape)
        seen = [np.count_nonzero((owner == k) & (mask == 0)) / area for k, area in enumerate(areas)]
        seen.append(np.count_nonzero(mask) / cv2.contourArea(points.astype(np.float32)))
        if min(seen) > 0.35:
            return points
    return None


def _outline(name: str) -> np.ndarray:
    """Corners (K, 2) of the shape, upright, at most 1 from its centre."""
    if name == "cross":
        a, b = 0.94, 0.30
        return np.array([(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b),
                         (-b, -b)])
    corners, radii = {"circle": (72, [0.9]), "square": (4, [1.0]), "triangle": (3, [1.0]), "star": (10, [1.0, 0.45])}[name]
    turn = 2 * np.pi * np.arange(corners) / corners - np.pi / 2
    return np.stack([np.cos(turn), np.sin(turn)], 1) * np.resize(radii, corners)[:, None]


def _mask(points: np.ndarray, shape: tuple[int, ...], value: int = 255) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], value, shift=4)
    return mask


def _paint(rng: np.random.Generator, canvas: np.ndarray, owner: np.ndarray, points: np.ndarray, k: int, hue: float) -> None:
    """Draw the shape with its shadow and its dark edge into `canvas` (in place), and its index into `owner`."""
    shape = owner.shape
    span = float(np.ptp(points, axis=0).max())
    mask = _mask(points, shape)
    shadow = cv2.blur(cv2.blur(_mask(points + span * 0.05, shape, 90), (11, 11)), (11, 11))
    canvas *= 1 - shadow[..., None].astype(np.float32) / 255
    # its hue keeps away from the background's: every shape can be told from what it lies on
    body = _colour(hue + rng.uniform(0.2, 0.8), rng.uniform(0.55, 0.95), rng.uniform(0.65, 1.0))
    shade = _field(rng, *shape)[..., None] * rng.uniform(0.15, 0.45)
    fill = body * (1.1 - shade)
    cv2.polylines(fill, [np.round(points * 16).astype(np.int32)], True, (body * 0.45).tolist(), max(2, int(span * 0.045)),
                  cv2.LINE_AA, shift=4)
    inside = mask > 0
    canvas[inside] = fill[inside]
    owner[inside] = k


def _background(rng: np.random.Generator, h: int, w: int, hue: float) -> np.ndarray:
    """float32 RGB (h, w, 3) in 0..255: a texture of two like colours with thin lines and dots on it."""
    dark, light = np.sort(rng.uniform(0.3, 0.95, 2))
    saturation = rng.uniform(0.1, 0.5)
    first, second = _colour(hue, saturation, dark), _colour(hue + rng.uniform(-0.08, 0.08), saturation, light)
    t = (0.75 * _field(rng, h, w) + 0.25 * _field(rng, h, w))[..., None]
    canvas = first * (1 - t) + second * t
    for _ in range(rng.integers(0, 14)):
        colour = _colour(hue + rng.uniform(-0.12, 0.12), saturation, rng.uniform(0.25, 1.0)).tolist()
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
    y, x = np.mgrid[:h, :w].astype(np.float32) / max(h, w) - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:
        field = along + 0.5
    elif kind == 3:
        cells = int(rng.integers(3, 24))
        field = cv2.resize(rng.random((cells, cells)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    else:
        field = np.sin(along * 2 * np.pi * rng.uniform(3, 14)) * 3
        field = (field if kind == 1 else field * np.sign(across * rng.uniform(3, 14) % 1 - 0.5)) * 0.5 + 0.5
    return field.clip(0, 1).astype(np.float32)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """float32 (3,) RGB in 0..255."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32) * 255
