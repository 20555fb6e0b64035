"""The distiller of Localization Distillation on the published batch: its terms, switches, devices and empty regions."""

from dataclasses import replace
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
from gan_kd.recipe import Localization

PUBLISHED = Localization()
# The coefficient of 5 classes, a sum over the 2 images of the batch.
CONFIG = replace(PUBLISHED, kd=replace(PUBLISHED.kd, coefficient=8.0))


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


def test_a_diagnosis_has_regions_and_edges_of_each_level(reference):
    found = built().diagnose([seen_of(reference)], 2)
    ends = np.cumsum(reference["batch/level_counts"])[:-1]
    shares = [
        np.exp(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))
        for logits in (reference[f"batch/{who}_reg"].reshape(2, -1, 4, 17) / 16 for who in ("teacher", "student"))
    ]
    apart = (shares[0] * np.log(shares[0] / shares[1])).sum(axis=-1).mean(axis=-1)
    regions = {
        "main": np.stack([reference[f"batch/two/assigned_gt{sample}"] >= 0 for sample in range(2)]),
        "vlr": np.stack([reference[f"batch/two/vlr_code{sample}"] > 0 for sample in range(2)]),
    }
    for name, region in regions.items():
        for level, (there, values) in enumerate(zip(np.split(region, ends, axis=1), np.split(apart, ends, axis=1))):
            assert found[f"{name}_region"][level] == pytest.approx(there.mean())
            expected = values[there].mean() if there.any() else np.nan
            assert found[f"{name}_edges"][level] == pytest.approx(expected, nan_ok=True)
    assert max(found["main_region"]) > 0 and max(found["vlr_region"]) > 0
    two = built().diagnose([seen_of(reference, (0,)), seen_of(reference, (1,))], 2)
    assert all(two[name] == pytest.approx(values, nan_ok=True) for name, values in found.items())
