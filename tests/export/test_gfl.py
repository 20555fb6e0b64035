"""GFL as MXNet's and as ONNX files: its head is called for five maps, by which operators repeat their names."""

import dataclasses

import mxnet as mx
import numpy as np
import pytest
from mxnet import nd

from gan_kd.data.sizes import Square
from gan_kd.detectors.base import Decoder, Detector, Parts
from gan_kd.detectors.gfl import family
from gan_kd.detectors.gfl.decode import GFLDecoder
from gan_kd.detectors.suppression import Suppression
from gan_kd.export import mxnet as form
from gan_kd.recipe import Eval, Gfl

SIZE = 128


@pytest.fixture(scope="module")
def detector():
    mx.random.seed(0)
    settings = dataclasses.asdict(Gfl(width=16, convolutions=2, groups=4, reg_max=8))
    about = {"backbone": "mobilenet0.25", "size": SIZE, "classes": ["cat", "dog"], "gfl": settings}
    parts = family.restore(about)
    for name, parameter in parts.head._collect_params_with_prefix().items():
        if name.endswith("weight"):  # scores and boxes that differ from cell to cell
            parameter.set_data(nd.random.normal(0, 0.1, parameter.shape))
    return family.join(parts, None, Eval(nms=0.6, nms_topk=200))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)


def test_mxnets_files_give_the_detectors_boxes(detector, images, tmp_path):
    form.save(form.trace(detector), tmp_path / "gfl")
    form.require_equal(tmp_path / "gfl", detector, images)


@pytest.mark.parametrize("most", [1000, 100])  # a level has up to 256 cells
def test_onnx_files_give_the_detectors_boxes(detector, images, tmp_path, most):
    onnx = pytest.importorskip("gan_kd.export.onnx")
    candidates = GFLDecoder(SIZE, SIZE, 8, most)
    candidates.initialize()
    parts = Parts(detector.extractor, detector.head, detector.sizes)
    cut = Detector(parts, None, Decoder(candidates, Suppression(candidates.kept, 2, 0.6, 200, 100)))
    onnx.save(cut, tmp_path / "plain.onnx", tmp_path / "suppressing.onnx")
    expected = candidates(*cut.head(*cut.head_maps(nd.array(images))))
    scores, boxes = onnx.run(onnx.session(tmp_path / "plain.onnx"), images)
    assert scores.shape[1] == sum(min(most, count) for count in (256, 64, 16, 4, 1))
    np.testing.assert_allclose(scores, expected[0].asnumpy(), atol=1e-5)
    np.testing.assert_allclose(boxes, expected[1].asnumpy(), atol=0.01)
    ids, scores, boxes = onnx.run(onnx.session(tmp_path / "suppressing.onnx"), images)
    for ours, theirs, bound in zip((ids, scores, boxes), cut(nd.array(images)), (0, 1e-5, 0.01)):
        np.testing.assert_allclose(ours, theirs.asnumpy(), atol=bound)
    assert (ids >= 0).sum() > 20


def test_a_level_is_cut_only_where_suppression_takes_more_candidates(detector, images):
    """Else the cut would change the order of rows alone: with as many candidates the detections are the same."""
    parts = Parts(detector.extractor, detector.head, Square(256))
    kept = [family.join(parts, None, Eval(nms_topk=topk)).decoder.candidates.kept for topk in (1000, 1001)]
    assert kept == [1024 + 256 + 64 + 16 + 4, 1000 + 256 + 64 + 16 + 4]
    found = []
    for most in (50, 10**6):
        candidates = GFLDecoder(SIZE, SIZE, 8, most)
        candidates.initialize()
        suppression = Suppression(candidates.kept, 2, 0.6, 50, 50)
        found.append(Decoder(candidates, suppression)(*detector.head(*detector.head_maps(nd.array(images)))))
    for cut, whole in zip(*found):
        np.testing.assert_array_equal(cut.asnumpy(), whole.asnumpy())
    assert (found[0][0].asnumpy() >= 0).sum() > 20
