"""YOLOv3 as MXNet's and as ONNX files: its head is written for ONNX anew, and its neck enlarges maps."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet import nd

from gan_kd.data import demo
from gan_kd.data.sizes import Square
from gan_kd.detectors.saved import load_detector, restore, save_detector
from gan_kd.errors import UsageError
from gan_kd.export import onnx, sources
from gan_kd.export.run import export
from gan_kd.recipe import Eval

SIZE = 96
NAME = f"yolo3_{SIZE}_mobilenet0.25"
ABOUT = {
    "network": "baseline", "detector": "yolo3", "backbone": "mobilenet0.25", "filters": [32, 16, 8], "size": SIZE,
    "classes": ["circle", "square", "star"], "head": "own", "head_backbone": "mobilenet0.25", "adapters": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images") / "drawn"
    demo.draw(root, train=1, test=7, seed=0)
    return root / "JPEGImages"


@pytest.fixture(scope="module")
def exported(images, tmp_path_factory):
    """A detector whose scores and boxes differ from cell to cell, and the folder of its export."""
    folder = tmp_path_factory.mktemp("run")
    mx.random.seed(0)
    detector = restore(ABOUT, Eval())
    for output in detector.head.yolo_outputs:
        weight = output.prediction.weight
        weight.set_data(nd.random.normal(0, 0.5, weight.shape))
    save_detector(detector, folder / "best.params", ABOUT)
    record = export(folder / "best.params", folder, ["mxnet", "onnx"], [images], rounds=1)
    return load_detector(folder / "best.params")[0], folder, record


@pytest.fixture(scope="module")
def pixels(images):
    return sources.pixels(sources.opened([images]), 8, Square(SIZE))


def test_the_record_names_all_forms(exported):
    _, folder, record = exported
    assert [form["files"][0] for form in record["forms"]] == [
        f"{NAME}-symbol.json", f"{NAME}-nms.onnx", f"{NAME}.onnx"
    ]  # fmt: skip
    assert all((folder / file).is_file() for form in record["forms"] for file in form["files"])
    assert "ONNX against MXNet on 8 images" in record["checks"][0]


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_gives_scores_and_boxes_of_every_anchor(exported, pixels, batch):
    detector, folder, _ = exported
    x = nd.array(pixels[:batch])
    expected = [part.asnumpy() for part in detector.decoder.candidates(*detector.head(*detector.head_maps(x)))]
    found = onnx.run(onnx.session(folder / f"{NAME}.onnx"), pixels[:batch])
    assert found[0].shape == (batch, 3 * (9 + 36 + 144), 3) and np.ptp(expected[0]) > 0.4
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], atol=0.01)


def test_onnx_suppresses_as_mxnet_does(exported, pixels):
    detector, folder, _ = exported
    found = onnx.run(onnx.session(folder / f"{NAME}-nms.onnx"), pixels)
    for one, other, bound in zip(found, detector(nd.array(pixels)), (0, 1e-5, 0.01)):
        np.testing.assert_allclose(one, other.asnumpy(), atol=bound)
    assert (found[0] >= 0).sum() > 100


def test_int8_is_refused_with_the_reason(exported, images):
    _, folder, _ = exported
    with pytest.raises(UsageError, match="int8.*boxes, objectness and classes"):
        export(folder / "best.params", folder / "more", ["int8"], calibrate=[images])
