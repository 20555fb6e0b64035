"""A detector with random weights as training leaves it."""

from __future__ import annotations

import mxnet as mx
import pytest

from gan_kd.detectors.saved import save_detector
from tests.rig import build_detector

CLASSES = ["circle", "square", "star", "triangle"]


@pytest.fixture(scope="package")
def params(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "best.params"
    mx.random.seed(0)
    meta = {
        "network": "baseline",
        "backbone": "mobilenet0.25",
        "size": 128,
        "classes": CLASSES,
        "head": "own",
        "head_backbone": "mobilenet0.25",
        "adapters": False,
        "nms": 0.45,
        "nms_topk": 50,
        "post_nms": 7,
    }
    save_detector(build_detector("mobilenet0.25", 128, CLASSES), path, meta)
    return path
