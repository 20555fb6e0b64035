"""Image files: decoded for training, and looked through for the check."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from gan_kd.data.record import Flaw
from gan_kd.errors import RunError
from gan_kd.system.paths import library_name

_FLAGS = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_COLOR_RGB,
}  # by reduction
_TURNED = (5, 6, 7, 8)  # values of EXIF's orientation that exchange width and height
# Of OpenCV's formats those that photographs come in, by the suffixes of their files. TIFF is a container of many codecs
# and pixel types, of which Pillow and OpenCV read different ones.
_FORMATS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "BMP": (".bmp",), "WEBP": (".webp",)}
#: Of the files that are looked for as images, in lower case.
SUFFIXES = tuple(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
#: Pixels of the largest image: 0.3 GB in a loader process.
MOST_PIXELS = 100_000_000


def read(path: Path, reduction: int = 1) -> np.ndarray:
    """The image as uint8 RGB (H, W, 3), turned as its EXIF orientation says, like MXNet's imread.

    reduction: 2, 4 or 8 to decode a JPEG at that fraction of its sides, rounded up, at less cost: each pixel stands
    for a square of so many, counted from the corner (of a turned photo: as it is stored). Raises RunError where it
    cannot be decoded.
    """
    try:
        image = decode(np.fromfile(path, np.uint8), reduction)
    except OSError:
        image = None
    if image is None:
        raise RunError(f"{path}: cannot be decoded as an image any more; python -m gan_kd check tells more")
    return image


def decode(file: np.ndarray, reduction: int = 1) -> np.ndarray | None:
    """The same from the bytes of a file, uint8; None where they cannot be decoded."""
    return cv2.imdecode(file, _FLAGS[reduction]) if len(file) else None


def readable(path: Path) -> bool:
    """Whether OpenCV takes the file for an image."""
    with library_name(path) as name:
        return bool(cv2.haveImageReader(name))


def reducible(path: Path) -> bool:
    """Whether `read` may be asked for less than full size: OpenCV decodes other files than JPEGs in full anyway."""
    return path.suffix.lower() in (".jpg", ".jpeg")


def verified_size(path: Path) -> tuple[int, int]:
    """Width and height, as `read` gives them, of an image that is complete; call it inside `strict`.

    Raises Flaw where the file is missing, not an image, too large to decode, or cut off. OpenCV fills what is cut
    off with grey; hence Pillow, and a JPEG at an eighth of its size, which reads the whole file with a third less work.
    """
    try:
        if path.exists() and not path.is_file():
            raise Flaw("is not a file")
        if path.is_file() and not readable(path):
            raise Flaw("is not an image that OpenCV can read")
        with Image.open(path, formats=tuple(_FORMATS)) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise Flaw(
                    f"has {width} x {height} px, more than the {MOST_PIXELS // 10**6} million pixels that are decoded: "
                    "make it smaller, or cut it up"
                )
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
            plain = image.format == "JPEG" and "exif" not in image.info
            image.draft("L", (1, 1))
            image.load()
    except FileNotFoundError:
        raise Flaw("does not exist") from None
    except UnidentifiedImageError:
        raise Flaw(f"is not an image of the formats {', '.join(_FORMATS)}") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise Flaw(f"cannot be decoded ({error})") from None
    size = (height, width) if turned else (width, height)
    if not plain:
        _compare_decoded(path, size)
    return size


def _compare_decoded(path: Path, size: tuple[int, int]) -> None:
    """Flaw where OpenCV reads another size than Pillow, or nothing: they differ in rare PNGs, BMPs and EXIF data."""
    image = decode(np.fromfile(path, np.uint8))
    if image is None or image.shape[1::-1] != size:
        found = "nothing" if image is None else " x ".join(map(str, image.shape[1::-1])) + " px"
        raise Flaw(f"cannot be decoded (Pillow finds {size[0]} x {size[1]} px in it, OpenCV {found})")


@contextlib.contextmanager
def strict() -> Iterator[None]:
    """Lets Pillow refuse images that are cut off; importing GluonCV makes it accept them everywhere.

    Pillow's own bound on pixels, a warning first, is off: `verified_size` has its own.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before
