"""ONNX: the same numbers as MXNet at any batch, the same suppression, and a refusal where they differ."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import onnx
import pytest

from gan_kd.detectors.saved import load_detector
from gan_kd.detectors.ssd.network import join
from gan_kd.errors import RunError
from gan_kd.export import onnx as files
from gan_kd.export.compare import BOUNDS, Bounds, difference, require_alike
from gan_kd.export.run import export
from gan_kd.recipe import Eval
from tests.rig import build_detector

CLASSES = ["circle", "square"]


def paths(exported):
    return exported.out / "ssd_128_mobilenet0.25.onnx", exported.out / "ssd_128_mobilenet0.25-nms.onnx"


@pytest.mark.parametrize("batch", [1, 3])
def test_raw_outputs_are_the_networks(exported, detector, pixels, batch):
    images = pixels[:batch]
    scores, boxes = files.run(files.session(paths(exported)[0]), images)
    maps = detector.adapters(*detector.extractor(mx.nd.array(images)))
    logits, offsets = (part.asnumpy() for part in detector.head(*maps))
    exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
    np.testing.assert_allclose(scores, (exponentials / exponentials.sum(axis=2, keepdims=True))[..., 1:], atol=1e-5)
    anchors = detector.head.anchors(detector.extractor.sizes)
    centre = anchors[:, :2] + 0.1 * offsets[..., :2] * anchors[:, 2:]
    half = anchors[:, 2:] * np.exp(0.2 * offsets[..., 2:]) / 2
    np.testing.assert_allclose(boxes, np.concatenate((centre - half, centre + half), axis=2), atol=1e-2)


@pytest.mark.parametrize("batch", [1, 3])
def test_suppression_is_mxnets(exported, detector, pixels, batch):
    images = pixels[:batch]
    found = files.run(files.session(paths(exported)[1]), images)
    assert [part.shape for part in found] == [(batch, 20, 1), (batch, 20, 1), (batch, 20, 4)]
    for one, other, bound in zip(found, detector(mx.nd.array(images)), (0, 1e-4, 1e-2)):
        np.testing.assert_allclose(one, other.asnumpy(), atol=bound, rtol=0)


def save(detector, folder):
    plain, suppressing = folder / "plain.onnx", folder / "nms.onnx"
    files.save(detector, plain, suppressing)
    return plain, suppressing


@pytest.fixture
def small():
    """A detector in which all candidates take part in suppression, more than 100 of which survive."""
    mx.random.seed(0)
    return build_detector("mobilenet0.25", 128, CLASSES, measured=Eval(nms_topk=100000, post_nms=500, nms=0.9))


def test_all_candidates_may_take_part(small, pixels, tmp_path):
    found = require_alike(small, *save(small, tmp_path), pixels[:2])
    assert found.detections > 200


def test_an_image_without_detections(small, pixels, tmp_path):
    """Nothing is left to suppress: every row is -1."""
    for predictor in small.head.class_predictors:
        bias = np.zeros((predictor.predictor.bias.shape[0] // 3, 3), np.float32)
        bias[:, 0] = 50  # of the background
        predictor.predictor.bias.set_data(mx.nd.array(bias.ravel()))
    for part in files.run(files.session(save(small, tmp_path)[1]), pixels[:2]):
        assert (part == -1).all()


def test_the_file_tells_what_it_needs(exported):
    for path in paths(exported):
        model = onnx.load(str(path))
        about = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
        assert about["classes"] == exported.record["classes"]
        assert about["mean"] == pytest.approx([123.675, 116.28, 103.53])
        assert [value.name for value in model.graph.input] == ["data"]
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_the_difference_is_measured(exported, detector, pixels):
    found = difference(detector, *paths(exported), pixels, BOUNDS)
    assert 0 < found.scores < 1e-5 and 0 < found.boxes < 1e-2
    assert found.images == 12 and found.same == found.detections == 12 * 20
    assert str(found) in exported.record["checks"][0]


def test_files_of_other_weights_are_refused(exported, pixels):
    mx.random.seed(1)
    other = build_detector("mobilenet0.25", 128, exported.record["classes"])
    with pytest.raises(RunError, match="over the bounds of 0.0001 and 0.1 px; nothing is kept"):
        require_alike(other, *paths(exported), pixels[:2])


def test_infinite_boxes_are_refused(small, pixels, tmp_path):
    """Equal in both runtimes, and of no use."""
    for predictor in small.head.box_predictors:
        predictor.predictor.bias.set_data(mx.nd.full(predictor.predictor.bias.shape, 1e6))
    with pytest.raises(RunError, match="boxes by nan px.* over the bounds"):
        require_alike(small, *save(small, tmp_path), pixels[:2])


def test_other_suppression_is_refused(exported, params, pixels):
    own = load_detector(params)[0]
    stricter = join(own.extractor, own.head, own.adapters, nms=0.2, nms_topk=60, post_nms=20)
    with pytest.raises(RunError, match=r"after suppression \d+ of \d+ detections are the same, less than 99%"):
        require_alike(stricter, *paths(exported), pixels[:4])


def test_over_the_bound_nothing_is_kept(params, folder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RunError, match="over the bounds of 0 and 0.1 px; nothing is kept"):
        export(params, out, ["mxnet", "onnx"], [folder], bounds=Bounds(0, 0.1), rounds=1)
    assert not out.exists()


def test_over_the_bound_older_files_stay(params, folder, tmp_path):
    older = tmp_path / "ssd_128_mobilenet0.25.onnx"
    older.write_bytes(b"of yesterday")
    with pytest.raises(RunError, match="over the bounds of 0.0001 and 0 px; nothing is kept"):
        export(params, tmp_path, ["onnx"], [folder], bounds=Bounds(1e-4, 0), rounds=1)
    assert [file.name for file in tmp_path.iterdir()] == [older.name]
    assert older.read_bytes() == b"of yesterday"
