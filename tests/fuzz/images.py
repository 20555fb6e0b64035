"""Image files: what the check accepts, the loader decodes to the size that the check found."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from gan_kd.data import images
from gan_kd.data.record import Flaw
from gan_kd.errors import UsageError
from tests.fuzz.site import SHARED, Site, written

_SIZE = (60, 40)


def jpeg(folder: Path) -> Site:
    """Drawn ones in all modes, and real ones where there are any."""
    turned = Image.Exif()
    turned[0x0112] = 6
    contents = [
        _encoded("JPEG"),
        _encoded("JPEG", exif=turned),
        _encoded("JPEG", progressive=True),
        _encoded("JPEG", "L"),
        _encoded("JPEG", "CMYK"),
    ]
    real = sorted((SHARED / "data" / "coco128").rglob("*.jpg"))[:2]
    at = contents[0].index(b"\xff\xc0") + 5
    bomb = contents[0][:at] + struct.pack(">HH", 65_500, 65_500) + contents[0][at + 4 :]
    return _site(folder, ".jpg", contents + [path.read_bytes() for path in real], {"a JPEG of 65500 x 65500 px": bomb})


def png(folder: Path) -> Site:
    """Drawn ones in all modes, turned, and animated."""
    turned = Image.Exif()
    turned[0x0112] = 6
    contents = [
        *(_encoded("PNG", mode) for mode in ("RGB", "RGBA", "P", "L", "LA", "1", "I;16")),
        _encoded("PNG", exif=turned),
        _encoded("PNG", save_all=True, append_images=[_drawn().rotate(90)]),
    ]
    sides = ((60_000, 60_000), (30_000, 30_000), (2**31 - 1, 1), (0, 7))
    return _site(folder, ".png", contents, {f"a PNG of {w} x {h} px": _png(w, h) for w, h in sides})


def bmp(folder: Path) -> Site:
    """Drawn ones in all modes."""
    contents = [_encoded("BMP", mode) for mode in ("RGB", "L", "P", "1")]
    sides = ((2**30, 2**30), (20_000, 20_000), (-60, 40), (60, -40), (60, -(2**31)))
    sizes = {f"a BMP of {w} x {h} px": struct.pack("<ii", w, h) for w, h in sides}
    return _site(folder, ".bmp", contents, {what: contents[0][:18] + b + contents[0][26:] for what, b in sizes.items()})


def webp(folder: Path) -> Site:
    """Drawn ones, with and without loss, and animated."""
    animated = _encoded("WEBP", save_all=True, append_images=[_drawn().rotate(90)])
    return _site(folder, ".webp", [_encoded("WEBP"), _encoded("WEBP", "RGBA", lossless=True), animated], {})


def _site(folder: Path, suffix: str, contents: list[bytes], bombs: dict[str, bytes]) -> Site:
    sound = [written(folder, (f"image{suffix}", content))[0] for content in contents]
    other = _encoded("GIF") if suffix == ".jpg" else _encoded("TIFF")
    hurtful = {"nothing in it": b"", "another format": other, "text": b"<html>not found</html>", **bombs}
    return Site(sound, _look, lambda file: cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR), hurtful)


def _look(file: Path) -> None:
    """As the check and then the loader read an image."""
    try:
        with images.strict():
            width, height = images.verified_size(file)
    except Flaw as flaw:
        raise UsageError(f"{file}: {flaw}") from None
    for reduction in (1, 2, 4, 8) if images.reducible(file) else (1,):
        shape = images.read(file, reduction).shape
        assert shape == (-(-height // reduction), -(-width // reduction), 3), f"{shape} for {width} x {height}"


def _drawn(mode: str = "RGB") -> Image.Image:
    image = Image.new("RGB", _SIZE, (40, 90, 160))
    draw = ImageDraw.Draw(image)
    draw.ellipse((5, 5, 40, 35), fill=(200, 60, 30))
    draw.line((0, 39, 59, 0), fill=(250, 250, 90), width=3)
    return image.convert(mode) if mode != "I;16" else Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)


def _encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    _drawn(mode).save(stream, kind, **options)
    return stream.getvalue()


def _png(width: int, height: int) -> bytes:
    """A whole PNG of one bit a pixel, all black; at most 30 million pixels are really there."""
    rows = min(height, 30_000_000 * 8 // max(width, 1) + 1)
    data = zlib.compress(bytes((width + 7) // 8 + 1) * rows if width < 10**6 else b"", 9)
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
