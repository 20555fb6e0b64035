"""The layout of a .params file is read as MXNet reads it, and what MXNet's parser must not see is refused by name."""

from __future__ import annotations

import struct

import mxnet as mx
import numpy as np
import pytest

from gan_kd.gluon import params_file

ARRAY = 24  # where the first array begins
AXES, ROWS, DEVICE, TYPE = ARRAY + 8, ARRAY + 12, ARRAY + 28, ARRAY + 36


@pytest.fixture
def path(tmp_path):
    """A file of one array of two axes."""
    mx.nd.save(str(tmp_path / "x.params"), {"conv.weight": mx.nd.ones((3, 4))})
    return tmp_path / "x.params"


def patch(path, at, layout, value):
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{layout}", content, at, value)
    path.write_bytes(content)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"])
def test_shapes_and_names_are_those_that_mxnet_reads(tmp_path, dtype):
    arrays = {"a": mx.nd.ones((2, 3, 1, 5), dtype=dtype), "b.c": mx.nd.ones(7, dtype=dtype)}
    mx.nd.save(str(tmp_path / "x"), arrays)
    assert params_file.inspect(tmp_path / "x") == {"a": (2, 3, 1, 5), "b.c": (7,)}
    assert list(params_file.load(tmp_path / "x")) == ["a", "b.c"]


def test_a_file_of_before_sparse_arrays_is_read(tmp_path):
    content = struct.pack("<QQQIiqqiii6fQQ1s", 0x112, 0, 1, 0xF993FAC8, 2, 2, 3, 1, 0, 0, *range(6), 1, 1, b"w")
    (tmp_path / "x").write_bytes(content)
    arrays = params_file.load(tmp_path / "x")
    np.testing.assert_array_equal(arrays["w"].asnumpy(), np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    "at, layout, value, message",
    [
        (0, "Q", 0x113, "does not begin as one"),
        (16, "Q", 2**61, "says that it holds 2305843009213693952 arrays"),
        (16, "Q", 2, "does not begin as one since MXNet 0.9"),
        (ARRAY, "I", 0xF993FACA, "NumPy's array semantics"),
        (ARRAY + 4, "i", 1, "is sparse"),
        (AXES, "i", -1, "has -1 axes"),
        (AXES, "i", 10**6, "has 1000000 axes"),
        (ROWS, "q", 2**62, "ends .* bytes too early"),
        (ROWS, "q", -3, "has the shape .-3, 4."),
        (ROWS, "q", 0, "has the shape .0, 4."),
        (DEVICE, "i", 4, "device 0 of kind 4"),
        (DEVICE + 4, "i", -1, "device -1 of kind 1"),
        (TYPE, "i", 12, "unknown type 12"),
        (-27, "Q", 3, "1 arrays and 3 names"),
        (-19, "Q", 2**40, "a name in it has 1099511627776 bytes"),
        (-11, "B", 10, "cannot be shown"),
    ],
)
def test_what_is_refused(path, at, layout, value, message):
    patch(path, at if at >= 0 else path.stat().st_size + at, layout, value)
    with pytest.raises(ValueError, match=message):
        params_file.load(path)


def test_cut_anywhere_or_longer(path):
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="ends"):
            params_file.inspect(path)
    path.write_bytes(content + b"x")
    with pytest.raises(ValueError, match="bytes follow its end"):
        params_file.inspect(path)


def test_a_name_twice(tmp_path):
    mx.nd.save(str(tmp_path / "x"), {"a": mx.nd.ones(1), "b": mx.nd.ones(1)})
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-1] + b"a")
    with pytest.raises(ValueError, match="two arrays in it have one name"):
        params_file.inspect(tmp_path / "x")


def test_a_file_larger_than_the_disk_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "x", "wb") as stream:
        stream.truncate(10**12)  # takes no room
    with pytest.raises(ValueError, match="1000 GB are more than"):
        params_file.inspect(tmp_path / "x")
