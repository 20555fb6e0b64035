"""Every way a .params file can be wrong, and a disk that cannot take it."""

import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import Constant, Parameter

from gan_kd.errors import RunError, UsageError
from gan_kd.gluon import weights

ROOT = Path(__file__).resolve().parents[2]


def parameter(shape=(2, 3), value=0.0, devices=1):
    made = Parameter("w", shape=shape)
    made.initialize(mx.init.Constant(value), ctx=[mx.cpu(i) for i in range(devices)])
    return made


def saved(path, **arrays):
    mx.nd.save(str(path), {name: mx.nd.array(array) for name, array in arrays.items()})
    return path


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.params"
    weights.write({"a.weight": parameter(value=1.5), "b": parameter(shape=(1,), value=-2)}, path)
    arrays = weights.read(path, "x")
    assert {name: array.asnumpy().tolist() for name, array in arrays.items()} == {
        "a.weight": [[1.5] * 3] * 2,
        "b": [-2.0],
    }
    assert [file.name for file in tmp_path.iterdir()] == ["x.params"]


def test_copies_on_several_contexts_are_averaged(tmp_path):
    statistic = parameter(shape=(1,), devices=2)
    for value, copy in zip((1, 4), statistic.list_data()):
        copy[:] = value
    weights.write({"mean": statistic}, tmp_path / "x.params")
    assert weights.read(tmp_path / "x.params", "x")["mean"].asscalar() == 2.5


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"weights: none\n" * 100),
        lambda path: np.save(path.open("wb"), np.zeros(3)),
        lambda path: path.write_bytes(saved(path, a=np.zeros((64, 64))).read_bytes()[:9000]),
        lambda path: path.write_bytes(saved(path, a=np.zeros((64, 64))).read_bytes()[:-4]),
    ],
)
def test_truncated_and_foreign_files(tmp_path, make):
    path = tmp_path / "x.params"
    make(path)
    with pytest.raises(UsageError) as caught:
        weights.read(path, "the teacher")
    assert str(caught.value).startswith(f"{path} is truncated or not a .params file (")
    assert str(caught.value).endswith("; it should hold the weights of the teacher")
    assert "\n" not in str(caught.value)


def test_no_file_no_names_no_arrays(tmp_path):
    with pytest.raises(UsageError, match="no such file; it should hold the weights of the teacher"):
        weights.read(tmp_path / "x.params", "the teacher")
    with pytest.raises(UsageError, match="no such file"):
        weights.read(tmp_path, "the teacher")
    mx.nd.save(str(tmp_path / "list"), [mx.nd.zeros(3)])
    with pytest.raises(UsageError, match="holds no named arrays"):
        weights.read(tmp_path / "list", "the teacher")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path, value):
    path = saved(tmp_path / "x.params", a=[1.0, 2.0], b=[0.0, value])
    with pytest.raises(UsageError, match="used for the teacher: 'b' holds values that are not finite"):
        weights.read(path, "the teacher")


@pytest.mark.parametrize(
    "arrays, sentence",
    [
        ({"a": np.ones((2, 3))}, "1 of its 2 arrays are missing, first 'b'"),
        (
            {"a": np.ones((2, 3)), "b": np.ones(1), "c": np.ones(1)},
            "the file has 1 arrays too many, first 'c'",
        ),
        ({"a": np.ones((2, 3)), "b": np.ones(4)}, r"'b' has the shape \(4,\) there and \(1,\) here"),
    ],
)
def test_all_or_nothing(arrays, sentence):
    target = {"a": parameter(), "b": parameter(shape=(1,))}
    with pytest.raises(UsageError, match=f"^x.params does not hold the weights of the teacher: {sentence}$"):
        weights.assign(target, {n: mx.nd.array(v) for n, v in arrays.items()}, "x.params", "the teacher")
    assert not target["a"].data().asnumpy().any()


def test_values_of_another_precision_are_converted():
    target = parameter()
    weights.assign({"a": target}, {"a": mx.nd.ones((2, 3), dtype="float16")}, "x.params", "x")
    assert target.data().dtype == np.float32 and target.data().asnumpy().all()


def test_constants_must_agree():
    anchors = Constant("anchors", [[1.0, 2.0]])
    anchors.initialize()
    weights.assign({"anchors": anchors}, {"anchors": mx.nd.array([[1, 2]])}, "x.params", "x")
    with pytest.raises(UsageError, match="'anchors' differs: the file is for another input size"):
        weights.assign({"anchors": anchors}, {"anchors": mx.nd.array([[1, 3]])}, "x.params", "x")


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.params", tmp_path):
        with pytest.raises(RunError, match=f"^cannot save {path}"):
            weights.write({"a": parameter()}, path)


# The limit on a file's size stands for the full disk: it stops the same write.
FULL_DISK = """
import resource, signal, sys
from gan_kd import compat
import mxnet as mx
from gan_kd.errors import RunError
from gan_kd.gluon import weights
big = mx.gluon.Parameter("w", shape=(300, 300))
big.initialize()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for room in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        weights.write({"w": big}, sys.argv[1])
    except RunError as error:
        print(error)
"""


def test_a_full_disk_keeps_the_old_file(tmp_path):
    """The numbers need 360,000 bytes and a few: none fits, the first block fits, all but the end fits."""
    path = saved(tmp_path / "x.params", w=[7.0])
    command = [sys.executable, "-c", FULL_DISK, str(path), "0", "4096", "359990"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = ran.stdout.splitlines()
    assert len(lines) == 3, ran.stdout + ran.stderr
    assert all(line.startswith(f"cannot save {path}: ") and "make room" in line for line in lines)
    assert [file.name for file in tmp_path.iterdir()] == ["x.params"]
    assert weights.read(path, "x")["w"].asscalar() == 7
