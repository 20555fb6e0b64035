"""The two evaluations that are timed: the same network on the same images, and nearly the same mAP."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.timings import evaluation

ROOT = Path(__file__).resolve().parents[3]
IMAGES = 6


def measured(side, root, split):
    return evaluation._in_process(side, root, split, IMAGES)


@pytest.fixture(scope="module")
def test_set(tmp_path_factory):
    """The drawn images, which stand in for photographs that are not there."""
    folder = tmp_path_factory.mktemp("set")
    before, evaluation.REAL = evaluation.REAL, folder / "absent"
    yield evaluation.test_set(folder, IMAGES)
    evaluation.REAL = before


def test_both_sides_evaluate_the_drawn_set(test_set):
    root, split, drawn = test_set
    assert drawn and len((root / f"ImageSets/Main/{split}.txt").read_text().split()) == IMAGES
    ours, theirs = measured("ours", root, split), measured("gluoncv", root, split)
    # Equal detections, counted in the image's pixels here and in the network's there.
    assert ours["mAP, %"] == pytest.approx(theirs["mAP, %"], abs=0.2)
    assert min(ours.values()) >= 0 and min(theirs.values()) >= 0
    assert ours["s"] > ours["metric alone, s"] > 0
    assert 0 < ours["candidates above 0.01, %"] < 20


@pytest.mark.parametrize("side", ["onnx", "int8"])
def test_exported_forms_evaluate_it_too(test_set, side):
    root, split, _ = test_set
    found = measured(side, root, split)
    assert 0 <= found["mAP, %"] <= 100 and found["s"] > found["metric alone, s"] > 0
    assert ("float32 by int8, forward" in found) is (side == "int8")


def test_a_side_that_fails_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="evaluation by ours failed"):
        measured("ours", tmp_path, "nosplit")


def test_detections_are_the_same(test_set):
    """Boxes, scores and classes of the network that is timed, by GluonCV's network and by our detector."""
    code = (
        "import json, numpy as np; from scripts.timings import evaluation as e\n"
        "from gan_kd.detectors.ssd.network import *\n"
        "net = e._network(); net.set_nms(e.NMS, e.TOPK, e.POST_NMS); x = e._noise(2)\n"
        "ours = join(*split(net), None, e.NMS, e.TOPK, e.POST_NMS)(x)\n"
        "print(json.dumps([bool((a == b).asnumpy().all()) for a, b in zip(net(x), ours)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [True] * 3
