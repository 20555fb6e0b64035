"""MXNet's files: the very same detections, without this package, and nothing else in them."""

from __future__ import annotations

import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest

from gan_kd.errors import RunError
from gan_kd.export import mxnet as symbol
from tests.rig import build_detector


def test_plain_mxnet_gives_the_same_detections(exported, detector, pixels, tmp_path):
    """In a process that knows MXNet alone, by `load_checkpoint` and an executor, which rounds a little differently."""
    np.save(tmp_path / "pixels.npy", pixels[:3])
    code = f"""
import sys, numpy as np
np.bool = bool
import mxnet as mx
symbol, weights, states = mx.model.load_checkpoint({str(exported.prefix)!r}, 0)
images = mx.nd.array(np.load({str(tmp_path / "pixels.npy")!r}))
outputs = symbol.bind(mx.cpu(), {{**weights, "data": images}}, grad_req="null", aux_states=states).forward()
np.savez({str(tmp_path / "found.npz")!r}, *[output.asnumpy() for output in outputs])
assert not [name for name in sys.modules if name.startswith(("gluoncv", "gan_kd"))]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=300)
    found = np.load(tmp_path / "found.npz")
    for name, part, bound in zip(found.files, detector(mx.nd.array(pixels[:3])), (0, 1e-6, 1e-3)):
        np.testing.assert_allclose(found[name], part.asnumpy(), atol=bound, rtol=0)


def test_the_file_holds_the_student_alone(exported, detector):
    _, weights, states = mx.model.load_checkpoint(str(exported.prefix), 0)
    stored = sum(array.size for array in (*weights.values(), *states.values()))
    own = sum(np.prod(value.shape) for name, value in detector.weights().items() if "anchor" not in name)
    assert stored == own + 4 * detector.decoder.suppression.count


def test_files_of_other_weights_are_refused(exported, pixels):
    mx.random.seed(1)
    other = build_detector("mobilenet0.25", 128, exported.record["classes"], head_backbone="mobilenet0.5")
    with pytest.raises(RunError, match="detections are not those of the params file"):
        symbol.require_equal(exported.prefix, other, pixels[:1])
