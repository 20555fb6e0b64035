"""Files of arrays: .params, checkpoints, saved detectors."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from gan_kd import compat  # noqa: F401  before MXNet

import mxnet as mx  # isort: skip

from gan_kd.detectors.saved import load_detector, save_detector
from gan_kd.errors import UsageError
from gan_kd.export.load import load_exported
from gan_kd.gluon import weights
from gan_kd.system.files import sha256
from gan_kd.training import checkpoint as checkpoints
from gan_kd.training.trainer import Progress
from tests.fuzz.site import SHARED, Site, written
from tests.rig import build_detector

ARRAY = 24  # where the first array begins


def params(folder: Path) -> Site:
    """Small files of several types and of the layout before 2017, and a real backbone where there is one."""
    arrays = {"conv.weight": mx.nd.ones((3, 4)), "count": mx.nd.ones((5,), dtype="int64"), "b": mx.nd.zeros(2)}
    few = _saved(folder, arrays)
    halves = _saved(folder, {f"layer{i}": mx.nd.full((2, 1, 3, 3), i, dtype="float16") for i in range(20)})
    contents = [few, halves, OLD]
    real = SHARED / "weights" / "mobilenet0.25.params"
    if real.is_file():
        contents.append(real.read_bytes())
    sound = [written(folder, ("a.params", content))[0] for content in contents]
    hurtful = {
        "nothing in it": b"",
        "-1 axes": _patched(few, ARRAY + 8, "i", -1),
        "a million axes": _patched(few, ARRAY + 8, "i", 10**6),
        "2^62 rows": _patched(few, ARRAY + 12, "q", 2**62),
        "2^32 rows": _patched(few, ARRAY + 12, "q", 2**32),
        "-3 rows": _patched(few, ARRAY + 12, "q", -3),
        "0 rows": _patched(few, ARRAY + 12, "q", 0),
        "2^28 arrays": _patched(few, 16, "Q", 2**28),
        "2^61 arrays": _patched(few, 16, "Q", 2**61),
        "sparse": _patched(few, ARRAY + 4, "i", 1),
        "sparse by rows": _patched(few, ARRAY + 4, "i", 2),
        "storage type 7": _patched(few, ARRAY + 4, "i", 7),
        "an unknown device": _patched(few, ARRAY + 28, "i", 9),
        "type 77": _patched(few, ARRAY + 36, "i", 77),
        "type -1": _patched(few, ARRAY + 36, "i", -1),
        "NumPy's semantics": _patched(few, ARRAY, "I", 0xF993FACA),
        "a name twice": few.replace(b"conv.weight", b"conv.weighs").replace(b"count", b"b" + bytes(4)),
        "a name of 2^40 bytes": _patched(few, len(few) - 9, "Q", 2**40),
        "a name over two lines": few.replace(b"conv.weight", b"conv\nweight"),
        "bytes behind its end": few + b"more",
        "NaN": _saved(folder, {"a": mx.nd.array([1, float("nan")])}),
        "a pickle": b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "a zip": b"PK\x03\x04" + bytes(200),
    }
    return Site(sound, lambda file: weights.read(file, "a network"), _bare, hurtful)


def checkpoint(folder: Path) -> Site:
    """Two checkpoints, the newer of which is damaged: the older one has to come back."""
    origin = {"recipe": "0" * 64, "mxnet": mx.__version__, "classes": ["cat"]}
    for number in (1, 2):
        arrays = {"detector/w": mx.nd.full((4, 4), number), "optimiser/0.count": mx.nd.ones(1, dtype="int64")}
        progress = {"stage": 0, "epoch": number}
        state = {"progress": progress, "metrics_bytes": 0, "teacher_map": None, "origin": origin}
        checkpoints.save(folder, f"{number:04d}-stage", arrays, state, keep=3)

    def resume(_: Path) -> None:
        found = checkpoints.load_last(folder, origin)
        assert found is not None, "the older checkpoint was not found either"
        with checkpoints.fitting(folder):
            epoch = Progress(**found[1]["progress"]).epoch
        if epoch == 1:
            raise UsageError(f"{folder} has a damaged checkpoint and goes on from the one before it")

    newest = folder / "0002-stage"
    sound = [(newest / name, (newest / name).read_bytes()) for name in (checkpoints.STATE, checkpoints.ARRAYS)]
    hurtful = {"nested deeply": b"[" * 100_000, "a list": b"[]", "a number": b"7", "no progress": b"{}"}
    return Site(sound, resume, lambda file: _json(file) if file.suffix == ".json" else _bare(file), hurtful)


def detector(folder: Path) -> Site:
    """A saved SSD and what describes it."""
    mx.random.seed(0)
    classes = ["cat", "dog"]
    file = folder / "best.params"
    meta = {"network": "baseline", "backbone": "mobilenet0.25", "size": 128, "classes": classes, "head": "own",
            "head_backbone": "mobilenet0.25", "adapters": False, "adapter": "linear", "map": 12.5}  # fmt: skip
    save_detector(build_detector("mobilenet0.25", 128, classes), file, meta)
    described = file.with_suffix(".json")
    sound = [(path, path.read_bytes()) for path in (described, file)]
    whole = json.loads(described.read_bytes())
    wrong: dict[str, list[Any]] = {
        "size": [1e308, 2**70, "128", None, -128, 10**9, True],
        "classes": ["cat", [], ["a"] * 2, [1, 2], ["x\ny", "b"], [f"c{i}" for i in range(30_000)], {"a": 1}],
        "backbone": [7, "../../x", "mobilenet9"],
        "head": ["teacher", 5, "both"],
        "head_backbone": ["vgg16_atrous", None],
        "adapter": ["cubic", 3, {}],
        "adapters": ["yes", True],
        "network": [["a"], "x\ny"],
        "sha256": [0, "0" * 64],
    }
    hurtful = {
        f"{key} {str(value)[:20]}": json.dumps({**whole, key: value}).encode()
        for key, values in wrong.items()
        for value in values
    }
    hurtful["nested deeply"] = b'{"a":' * 50_000
    return Site(sound, lambda _: load_detector(file), lambda f: _json(f) if f == described else _bare(f), hurtful)


def exported(folder: Path) -> Site:
    """A network as MXNet's symbol with the record of its export, and the record alone damaged as well."""
    net = mx.sym.Group([mx.sym.var("data") * mx.sym.var(name) for name in ("ids", "scores", "boxes")])
    folder.mkdir(exist_ok=True)
    mx.model.save_checkpoint(str(folder / "net"), 0, net, {n: mx.nd.ones((1,)) for n in ("ids", "scores", "boxes")}, {})
    names = ["net-symbol.json", "net-0000.params"]
    form = {"name": "teacher", "files": names, "parameters": 3, "macs": 3}
    record = {
        "source": {"network": "teacher", "backbone": "x", "head": "own", "head_backbone": "x", "sha256": "0"},
        "input": {"shape": ["N", 3, 128, 128]}, "classes": ["cat"],
        "forms": [{**form, "sha256": {name: sha256(folder / name) for name in names}}],
    }  # fmt: skip
    file = folder / "export.json"
    sound = written(folder, (file.name, json.dumps(record).encode()))
    sound += [(folder / name, (folder / name).read_bytes()) for name in names]
    wrong: dict[str, list[Any]] = {
        "source": [None, [], {}, "x", {**record["source"], "network": 7}],  # type: ignore[dict-item]
        "input": [{}, {"shape": 7}, {"shape": [1, 3, "128", 128]}, {"shape": [1, 3, 10**9, 1]}, {"shape": [1, True]}],
        "classes": [None, [], [7], "cat", {}],
        "forms": [None, [], {}, [7], [{}], [{**form, "files": None}], [{**form, "files": []}], [{**form, "files": [7]}],
                  [{**form, "files": names[:1]}], [{**form, "macs": float("inf")}],
                  [{**form, "files": ["../../etc/hostname"]}], [{**form, "files": ["/dev/zero-symbol.json"]}],
                  [{**form, "sha256": 7}], [{**form, "macs": None}], [{**form, "macs": float("nan")}]],
    }  # fmt: skip
    hurtful = {
        f"{key} {str(value)[:30]}": json.dumps({**record, key: value}).encode()
        for key, values in wrong.items()
        for value in values
    }
    hurtful |= {"nested deeply": b"[" * 100_000, "a list": b"[]"}
    return Site(sound, lambda _: load_exported(folder), lambda path: _json(path) if path == file else path, hurtful)


def _bare(file: Path) -> list:
    arrays = mx.nd.load(str(file))
    return [array.asnumpy() for array in (list(arrays.values()) if isinstance(arrays, dict) else arrays)]


def _json(file: Path) -> object:
    return json.loads(file.read_text())


def _saved(folder: Path, arrays: dict[str, mx.nd.NDArray]) -> bytes:
    folder.mkdir(exist_ok=True)
    file = folder / "new"
    mx.nd.save(str(file), arrays)
    content = file.read_bytes()
    file.unlink()
    return content


def _patched(content: bytes, at: int, layout: str, value: int) -> bytes:
    word = struct.pack(f"<{layout}", value)
    return content[:at] + word + content[at + len(word) :]


#: One array (2, 3) of float32 named w, as MXNet wrote it before sparse arrays.
OLD = struct.pack("<QQQIiqqiii6fQQ1s", 0x112, 0, 1, 0xF993FAC8, 2, 2, 3, 1, 0, 0, *range(6), 1, 1, b"w")
