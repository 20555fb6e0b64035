"""The layout of .params files, looked through before MXNet's parser sees one.

That parser believes what a file says of itself: a size of -1 ends the process, and a few bytes make it reserve
gigabytes (results/robustness.md). Here every size is held against what is left of the file, and no data is read.

A file is 0x112, 0, and two lists, each behind its length: arrays and names (MXNet 1.9.1, src/ndarray/ndarray.cc,
NDArray::Save). All numbers are little-endian. Ours go on with a description (detectors/description.py), up to which
MXNet reads.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import BinaryIO, Union

import mxnet as mx

from gan_kd.system.paths import library_name

_LIST = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA  # an array: before sparse ones (2017), since, of NumPy's shapes
_DENSE = 0
_DEVICES = (1, 2, 3, 5)  # cpu, gpu, cpu_pinned, cpu_shared
_ITEM_BYTES = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8, 7: 1}  # float32 float64 float16 uint8 int32 int8 int64 bool

# A network and its optimisers have some thousand arrays of up to five axes; the largest checkpoint of any recipe is
# below 2 GB.
_MOST_BYTES = 8_000_000_000
_MOST_ARRAYS = 100_000
_MOST_AXES = 8
_LONGEST_NAME = 1000  # bytes
#: Begins the description behind the arrays.
MARK = b"\n#gan_kd: "
_LONGEST_DESCRIPTION = 1_000_000  # bytes

Arrays = Union[dict[str, mx.nd.NDArray], list[mx.nd.NDArray]]


def load(path: str | Path) -> Arrays:
    """The arrays of a .params file by name, on the device where they were; a list where they have no names.

    Raises ValueError with what is wrong, OSError, or MXNetError for what only MXNet can find.
    """
    inspect(path)
    with library_name(Path(path)) as name:
        return mx.nd.load(name)


def save(path: Path, arrays: dict[str, mx.nd.NDArray]) -> None:
    """Write arrays by name, and read them again: what MXNet could not write it does not report. OSError, MXNetError."""
    path.touch()  # a file whose name is not UTF-8 has to be there to be named
    with library_name(path) as name:
        mx.nd.save(name, arrays)
        mx.nd.load(name)


def inspect(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays in a .params file by name; none where they have no names.

    Reads the headers alone. Raises ValueError with what is wrong, or OSError.
    """
    with open(path, "rb") as stream:
        reader = _Reader(stream)
        if reader.left > _MOST_BYTES:
            raise ValueError(f"{reader.left / 1e9:.0f} GB are more than any network here needs")
        magic, _, count = reader.numbers("QQQ")
        if magic != _LIST:
            raise ValueError("it does not begin as one")
        if count > _MOST_ARRAYS:
            raise ValueError(f"it says that it holds {count} arrays")
        shapes = [_array(reader) for _ in range(count)]
        names = _names(reader, count)
        described = len(MARK) < reader.left <= _LONGEST_DESCRIPTION and reader.take(len(MARK)) == MARK
        if reader.left and not described:
            raise ValueError("bytes follow its end")
    return dict(zip(names, shapes))


class _Reader:
    """A file from its start, with what is left of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.left = os.fstat(stream.fileno()).st_size

    def numbers(self, layout: str) -> tuple[int, ...]:
        """The next numbers, as struct names their types."""
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    def take(self, size: int) -> bytes:
        """The next bytes."""
        self._spend(size)
        return self._stream.read(size)

    def skip(self, size: int) -> None:
        """Pass over the next bytes."""
        self._spend(size)
        self._stream.seek(size, os.SEEK_CUR)

    def _spend(self, size: int) -> None:
        if size > self.left:
            raise ValueError(f"it ends {size - self.left} bytes too early")
        self.left -= size


def _array(reader: _Reader) -> tuple[int, ...]:
    """The shape of the next array, which is passed over."""
    (magic,) = reader.numbers("I")
    if magic == _V3:
        raise ValueError("it was saved with NumPy's array semantics, which MXNet loads under npx.set_np() only")
    if magic not in (_V1, _V2):
        raise ValueError("an array in it does not begin as one since MXNet 0.9 does")
    if magic == _V2 and reader.numbers("i") != (_DENSE,):
        raise ValueError("an array in it is sparse")
    (axes,) = reader.numbers("i")
    if not 1 <= axes <= _MOST_AXES:
        raise ValueError(f"an array in it has {axes} axes")
    shape = reader.numbers(f"{axes}q")
    device, number, kind = reader.numbers("iii")
    if min(shape) < 1:
        raise ValueError(f"an array in it has the shape {shape}")
    if device not in _DEVICES or not 0 <= number < 256:
        raise ValueError(f"an array in it was on device {number} of kind {device}")
    if kind not in _ITEM_BYTES:
        raise ValueError(f"an array in it is of the unknown type {kind}")
    reader.skip(math.prod(shape) * _ITEM_BYTES[kind])
    return shape


def _names(reader: _Reader, arrays: int) -> list[str]:
    (count,) = reader.numbers("Q")
    if count not in (0, arrays):
        raise ValueError(f"it says that it holds {arrays} arrays and {count} names")
    names = []
    for _ in range(count):
        (length,) = reader.numbers("Q")
        if length > _LONGEST_NAME:
            raise ValueError(f"a name in it has {length} bytes")
        names.append(reader.take(length).decode())
        if not names[-1].isprintable():
            raise ValueError("a name in it has characters that cannot be shown")
    if len(set(names)) < count:
        raise ValueError("two arrays in it have one name")
    return names
