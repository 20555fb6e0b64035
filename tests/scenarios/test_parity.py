"""Several devices against one: equal to rounding, and the same every time."""

import json

import mxnet as mx
import numpy as np
import pytest

from gan_kd.gluon.arrays import prefixed, set_values, stripped, values
from gan_kd.gluon.optim import Position
from scripts import parity


@pytest.mark.parametrize("distillers", [(), ("gan",), parity.BOTH], ids=["baseline", "gan", "gan-cosine"])
def test_an_uneven_batch_on_two_contexts_trains_as_on_one(distillers):
    """With --syncbn losses, weights and statistics agree, D's included; float64, so that rounding hides nothing."""
    row = parity.two_contexts(distillers, dtype="float64", steps=2)
    assert set(row.differences) == {"losses", "weights", "statistics"}
    assert max(row.differences.values()) < 1e-5, row


def test_the_first_step_agrees_in_float32_and_needs_syncbn():
    row, without = (parity.two_contexts(parity.BOTH, sync_bn, steps=1) for sync_bn in (True, False))
    assert row.differences["losses"] < 1e-4
    assert row.differences["statistics"] < 1e-3
    assert without.differences["statistics"] > 0.01


def test_evaluation_on_two_contexts_gives_the_detections_of_one():
    row = parity.evaluation()
    assert row.differences["detections"] < 1e-3 and row.differences["mAP"] < 1e-6


def test_steps_on_two_contexts_are_the_same_every_time():
    """To the last bit, and each context moves its own statistics from the first batch on."""
    runs = [parity.outcome(parity.new_step((), parity.TWO), steps=1) for _ in range(4)]
    for run in runs[1:]:
        for kind, arrays in run.items():
            for array, before in zip(arrays, runs[0][kind]):
                np.testing.assert_array_equal(array, before)
    means = runs[0]["statistics"]
    assert len(means) == 70
    assert all(np.abs(first - second).max() > 0 for first, second in means)
    assert not any((copies == 0).all() or (copies == 1).all() for copies in means)


def test_a_run_on_two_contexts_goes_on_from_its_checkpoint(tmp_path):
    """BatchNorm's statistics differ between the contexts; the Trainers' first step leaves them so."""
    step = parity.new_step(parity.BOTH, parity.TWO)
    train(step, range(2))
    arrays = {**prefixed("detector", values(step.networks.detector.weights()))}
    arrays.update(prefixed("optimiser", step.optimisation.state()))
    arrays.update(prefixed("adversarial", step.distillers[0].state()))
    mx.nd.save(str(tmp_path / "arrays"), arrays)
    train(step, range(2, 4))

    saved = mx.nd.load(str(tmp_path / "arrays"))
    resumed = parity.new_step(parity.BOTH, parity.TWO)
    set_values(resumed.networks.detector.weights(), stripped("detector", saved))
    resumed.optimisation.load_state(stripped("optimiser", saved))
    resumed.distillers[0].load_state(stripped("adversarial", saved))
    train(resumed, range(2, 4))
    for block, other in (
        (step.networks.detector, resumed.networks.detector),
        (step.distillers[0].dnet, resumed.distillers[0].dnet),
    ):
        for name, parameter in block._collect_params_with_prefix().items():
            copies = other._collect_params_with_prefix()[name].list_data()
            for data, again in zip(parameter.list_data(), copies):
                np.testing.assert_array_equal(again.asnumpy(), data.asnumpy(), err_msg=name)


def train(step, seeds):
    for seed in seeds:
        step(parity.new_batch(step, seed), Position(seed, 4, 1))


def test_the_command_prints_and_writes_every_row(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parity, "COMPARISONS", (lambda: parity.Row("a against b", {"losses": 2e-7}),))
    assert parity.main(["--json", str(tmp_path / "rows.json")]) == 0
    assert "a against b" in capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows == [{"what": "a against b", "differences": {"losses": 2e-7}}]
