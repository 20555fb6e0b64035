"""A distilled detector with random weights, and one export of it in every form."""

from __future__ import annotations

from typing import NamedTuple

import mxnet as mx
import numpy as np
import pytest

from gan_kd.data import demo
from gan_kd.data.sizes import Square
from gan_kd.detectors.saved import load_detector, save_detector
from gan_kd.export import sources
from gan_kd.export.run import export
from tests.rig import build_detector

CLASSES = ["circle", "square", "star", "triangle"]


class Exported(NamedTuple):
    params: object  # the params file, which lies alone
    out: object
    record: dict
    prefix: object  # of the MXNet files


@pytest.fixture(scope="package")
def params(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "best.params"
    mx.random.seed(0)
    meta = {"network": "distilled", "backbone": "mobilenet0.25", "size": 128, "classes": CLASSES, "head": "teacher",
            "head_backbone": "mobilenet0.5", "adapters": True, "adapter": "relu",
            "nms": 0.45, "nms_topk": 60, "post_nms": 20}  # fmt: skip
    detector = build_detector("mobilenet0.25", 128, CLASSES, head_backbone="mobilenet0.5", adapter="relu")
    save_detector(detector, path, meta)
    path.with_suffix(".json").unlink()
    return path


@pytest.fixture(scope="package")
def detector(params):
    return load_detector(params)[0]


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """Twelve drawn images."""
    root = tmp_path_factory.mktemp("images") / "drawn"
    demo.draw(root, train=1, test=11, seed=0)
    return root / "JPEGImages"


@pytest.fixture(scope="package")
def pixels(folder) -> np.ndarray:
    return sources.pixels(sources.opened([folder]), 12, Square(128))


@pytest.fixture(scope="package")
def exported(params, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("products") / "new" / "out"
    record = export(params, out, ["mxnet", "onnx", "int8"], [folder], [folder], teacher=params, rounds=1)
    return Exported(params, out, record, out / "ssd_128_mobilenet0.25")
