"""int8: convolutions on integers, detections near those of float32."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

from gan_kd.errors import UsageError
from gan_kd.export import mxnet as symbol
from gan_kd.export.run import export


def test_every_convolution_runs_on_integers(exported):
    nodes = json.loads(exported.prefix.with_name(f"{exported.prefix.name}-int8-symbol.json").read_text())["nodes"]
    convolutions = [node for node in nodes if "conv" in node["op"].lower()]
    assert len(convolutions) > 40
    assert all(node["name"].startswith("quantized_") for node in convolutions)


def test_the_best_detections_are_near_those_of_float32(exported, detector, pixels):
    net = symbol.load(exported.prefix.with_name(f"{exported.prefix.name}-int8"))
    for batch in (1, 3):
        images = mx.nd.array(pixels[:batch])
        scores, floats = net(images)[1].asnumpy(), detector(images)[1].asnumpy()
        assert scores.shape == floats.shape
        assert 0 < np.abs(scores - floats)[:, 0].max() < 0.05


def test_it_needs_images(params, tmp_path):
    with pytest.raises(UsageError, match="int8 needs images: name some with --calibrate"):
        export(params, tmp_path, ["int8"])
