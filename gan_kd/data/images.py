"""Image files: decoded for training, and looked through for the check."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from gan_kd.data.record import Flaw
from gan_kd.errors import RunError, UsageError
from gan_kd.system.paths import library_name
from gan_kd.system.untrusted import read_bytes

_FLAGS = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_COLOR_RGB,
}  # by reduction
_TURNED = (5, 6, 7, 8)  # values of EXIF's orientation that exchange width and height
# Of OpenCV's formats those that photographs come in, by the suffixes of their files. TIFF is a container of many codecs
# and pixel types, of which Pillow and OpenCV read different ones.
_FORMATS = {"JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "PNG": (".png",), "BMP": (".bmp",), "WEBP": (".webp",)}
#: Of the files that are looked for as images, in lower case.
SUFFIXES = tuple(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
#: Pixels of the largest image: 0.3 GB in a loader process.
MOST_PIXELS = 100_000_000
_LARGEST = 500_000_000  # bytes of a file; so many pixels as a BMP
_DARK = 1 << 14  # of 16 bits: pictures of sensors of 10 to 14 bits, saved as they are, end below it and look black

_TO_8_BITS = {  # by NumPy's kinds of types
    "f": "(255 * image).round().astype('uint8') where white is 1",
    "u": "(image >> 8).astype('uint8') where all of 16 bits are in use",
}

#: What `read` makes of a file beside decoding it, as notes of the check.
TURNED = (
    "images turned as their orientation tag (EXIF) says, as browsers and OpenCV turn them; MXNet's imread, and so "
    "GluonCV, does not, and the check cannot tell for which of the two the boxes were drawn"
)
DEEP = "images of 16 bits a channel: the upper 8 are used"
ALPHA = "images with an alpha channel, which is dropped"
SEVERAL = "files of several images: the first is used"


class Look(NamedTuple):
    """What was found in an image file: width and height as `read` gives them, notes, and a digest of its bytes."""

    width: int
    height: int
    notes: tuple[str, ...]
    digest: bytes

    @property
    def turn(self) -> str:
        """For a message about a size that is not this one."""
        return " (turned as its orientation tag says)" if TURNED in self.notes else ""


def read(path: Path, reduction: int = 1) -> np.ndarray:
    """The image as uint8 RGB (H, W, 3), turned as its EXIF orientation says.

    So do browsers and cv2.imread; MXNet's imread does not. Of 16 bits a channel the upper 8 are taken, alpha is
    dropped, of several images in a file the first is read. reduction: 2, 4 or 8 to decode a JPEG at that fraction of
    its sides, rounded up, at less cost: each pixel stands for a square of so many, counted from the corner (of a turned
    photo: as it is stored). Raises RunError where it cannot be decoded.
    """
    try:
        image = decode(np.fromfile(path, np.uint8), reduction)
    except OSError:
        image = None
    if image is None:
        raise RunError(f"{path}: cannot be decoded as an image any more; python -m gan_kd check tells more")
    return image


def as_rgb(image: np.ndarray | Image.Image, name: str = "the image") -> np.ndarray:
    """An image of an array or of Pillow as `read` gives it: uint8 RGB (H, W, 3).

    uint8 arrays: (H, W, 3) as it is, gray (H, W) and (H, W, 1) as three equal channels, (H, W, 4) without its alpha.
    Of Pillow: turned by its orientation tag, then RGB. UsageError for an empty image, other shapes, and other types
    than uint8, since nothing says which of their values is white; and for anything else. name: for the message.
    """
    if isinstance(image, Image.Image) and not image.mode.startswith(("I", "F")):
        try:
            image = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise UsageError(f"{name} cannot be decoded ({error})") from None
    array = np.asarray(image) if isinstance(image, (np.ndarray, Image.Image)) else None
    if array is None:
        raise UsageError(f"{name} is of the type {type(image).__name__}: give a file, a NumPy array or a Pillow image")
    if array.dtype != np.uint8:
        advice = _TO_8_BITS.get(array.dtype.kind, "give uint8 with values from 0 to 255")
        raise UsageError(f"{name} is an array of {array.dtype}, of which nothing says which value is white: {advice}")
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise UsageError(f"{name} is an array of the shape {shape}: give (H, W, 3) RGB or (H, W) gray")
    return np.ascontiguousarray(array[..., :3] if array.shape[2] > 1 else array.repeat(3, axis=2))


def decode(file: np.ndarray, reduction: int = 1) -> np.ndarray | None:
    """The same from the bytes of a file, uint8; None where they cannot be decoded."""
    return cv2.imdecode(file, _FLAGS[reduction]) if len(file) else None


def readable(path: Path) -> bool:
    """Whether OpenCV takes the file for an image."""
    with library_name(path) as name:
        return bool(cv2.haveImageReader(name))


def reducible(path: Path) -> bool:
    """Whether `read` may be asked for less than full size: OpenCV decodes other files than JPEGs in full anyway."""
    return path.suffix.lower() in _FORMATS["JPEG"]


def verified_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as of `examine`."""
    return examine(path)[:2]


def examine(path: Path) -> Look:
    """What is in an image file that is complete; call it inside `strict`.

    Raises Flaw where the file is missing, not an image, too large to decode, cut off, or of 16 bits and dark. OpenCV
    fills what is cut off with grey; hence Pillow, and a JPEG at an eighth of its size, which reads the whole file with
    a third less work.
    """
    try:
        if path.exists() and not path.is_file():
            raise Flaw("is not a file")
        content = read_bytes(path, _LARGEST)
        with Image.open(io.BytesIO(content), formats=tuple(_FORMATS)) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise Flaw(
                    f"has {width} x {height} px, more than the {MOST_PIXELS // 10**6} million pixels that are decoded: "
                    "make it smaller, or cut it up"
                )
            orientation = image.getexif().get(ExifTags.Base.Orientation)
            deep = image.format == "PNG" and content[24] == 16  # bits, of its header
            notes = {
                TURNED: isinstance(orientation, int) and 2 <= orientation <= 8,
                DEEP: deep,
                ALPHA: image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info,
                SEVERAL: getattr(image, "n_frames", 1) > 1,
            }
            plain = image.format == "JPEG" and "exif" not in image.info
            image.draft("L", (1, 1))
            image.load()
    except FileNotFoundError:
        raise Flaw("does not exist") from None
    except UnidentifiedImageError:
        raise Flaw(f"is not an image of the formats {', '.join(_FORMATS)}") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise Flaw(f"cannot be decoded ({error})") from None
    size = (height, width) if orientation in _TURNED else (width, height)
    pixels = np.frombuffer(content, np.uint8)
    if not plain:
        _compare_decoded(pixels, size)
    if deep:
        _refuse_dark(pixels)
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return Look(*size, tuple(note for note, there in notes.items() if there), digest)


def _compare_decoded(file: np.ndarray, size: tuple[int, int]) -> None:
    """Flaw where OpenCV reads another size than Pillow, or nothing: they differ in rare PNGs, BMPs and EXIF data."""
    image = decode(file)
    if image is None or image.shape[1::-1] != size:
        found = "nothing" if image is None else " x ".join(map(str, image.shape[1::-1])) + " px"
        raise Flaw(f"cannot be decoded (Pillow finds {size[0]} x {size[1]} px in it, OpenCV {found})")


def _refuse_dark(file: np.ndarray) -> None:
    """Flaw for 16 bits a channel of which only the lower ones are used: the upper 8, which are read, hold nothing."""
    image = cv2.imdecode(file, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    most = 0 if image is None else int(image.max())
    if most < _DARK:
        raise Flaw(
            f"has 16 bits a channel, but no value above {most}, so that it is read as black or nearly so: "
            "stretch its values to 65535, or save 8 bits"
        )


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
