"""The distiller of Localization Distillation on the published batch: its terms, switches, devices and empty regions."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd

from gan_kd.detectors.gfl import priors
from gan_kd.detectors.gfl.loss import Share
from gan_kd.detectors.gfl.network import Outputs
from gan_kd.distill.base import Compared
from gan_kd.distill.localization import LocalizationDistillation
from gan_kd.errors import UsageError
from gan_kd.recipe import Localization

PUBLISHED = Localization()
# The coefficient of 5 classes, a sum over the 2 images of the batch.
CONFIG = replace(PUBLISHED, kd=replace(PUBLISHED.kd, coefficient=8.0))


@pytest.fixture(scope="module")
def reference(shared: Path) -> Mapping[str, np.ndarray]:
    path = shared / "reference/gfl.npz"
    if not path.is_file():
        pytest.skip("the reference values of GFL (../shared/reference/gfl.npz) are not beside this checkout")
    return dict(np.load(path))


def seen_of(reference, samples=(0, 1), empty=False):
    """What a device with these samples sees; empty: there is no object in them."""
    chosen = list(samples)
    outputs = [
        Outputs(*(nd.array(reference[f"batch/{who}_{kind}"][chosen] / 16, dtype="float64") for kind in ("cls", "reg")))
        for who in ("teacher", "student")
    ]
    objects = np.stack([reference[f"batch/two/assigned_gt{sample}"] for sample in samples])
    truth, thresholds = np.full((len(samples), 2, 5), -1.0), np.zeros((len(samples), 2))
    for row, sample in enumerate(samples):
        boxes = reference[f"batch/two/gt{sample}"]
        truth[row, : len(boxes)] = np.column_stack([boxes, reference[f"batch/two/gt_label{sample}"]])
        thresholds[row, : len(boxes)] = reference[f"batch/two/threshold{sample}"]
    if empty:
        objects, truth = np.full_like(objects, -1), np.full_like(truth, -1)
    made = priors.make(reference["batch/level_shapes"].tolist())
    share = Share(made, objects, truth, thresholds, None, None, 1)
    return SimpleNamespace(outputs=tuple(outputs), assigned={"share": share})


def built(config=CONFIG):
    return LocalizationDistillation(config, Compared([], (mx.cpu(),)))


def totals(distiller, parts):
    with autograd.record():
        named = distiller.shares(parts, 2)
    return {name: sum(part.asscalar() for part in shares) for name, shares in named.items()}


def test_terms_are_the_published_ones(reference):
    found = totals(built(), [seen_of(reference)])
    assert set(found) == {"ld", "ld_vlr", "kd"}
    for name, published in (("ld", "loss_ld"), ("ld_vlr", "loss_ld_vlr"), ("kd", "loss_kd")):
        assert found[name] == pytest.approx(reference[f"batch/two/ld/{published}"].sum(), rel=1e-7)
    union = replace(CONFIG, vlr=replace(CONFIG.vlr, overlap="union"))
    paper = totals(built(union), [seen_of(reference)])
    assert paper["ld_vlr"] == pytest.approx(reference["batch/two/ld_paper_region/loss_ld_vlr"].sum(), rel=1e-7)


def test_two_devices_give_what_one_gives(reference):
    config = replace(CONFIG, kd=replace(CONFIG.kd, vlr=1.0))
    one = totals(built(config), [seen_of(reference)])
    two = totals(built(config), [seen_of(reference, (0,)), seen_of(reference, (1,))])
    assert set(one) == {"ld", "ld_vlr", "kd", "kd_vlr"}
    assert two == pytest.approx(one, rel=1e-12)


def test_terms_without_weight_are_left_out(reference):
    off = replace(CONFIG, ld=replace(CONFIG.ld, main=0.0, vlr=0.0), kd=replace(CONFIG.kd, main=0.0))
    assert built(off).shares([seen_of(reference)], 2) == {}


def test_the_box_terms_are_those_of_the_reference_batch(reference):
    larger = replace(CONFIG, ld=replace(CONFIG.ld, reference=8.0))
    found, four_times = (totals(built(config), [seen_of(reference)]) for config in (CONFIG, larger))
    assert four_times["ld"] == pytest.approx(4 * found["ld"])
    assert four_times["kd"] == pytest.approx(found["kd"])


def test_a_batch_without_an_object_teaches_nothing_and_has_gradients_of_zero(reference):
    part = seen_of(reference, empty=True)
    student = part.outputs[1]
    for logits in student:
        logits.attach_grad()
    with autograd.record():
        named = built().shares([part], 2)
        total = nd.add_n(*[share for (share,) in named.values()])
    total.backward()
    assert total.asscalar() == 0
    for logits in student:
        assert (logits.grad.asnumpy() == 0).all()


def test_a_teacher_with_other_bins_is_refused(reference):
    part = seen_of(reference)
    teacher, student = part.outputs
    part.outputs = (teacher._replace(boxes=teacher.boxes[:, :, :36]), student)
    with pytest.raises(UsageError, match="student has 68 numbers of box edges at 257 priors and the teacher 36 at 257"):
        built().shares([part], 2)
