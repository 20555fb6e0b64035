"""Schedules by hand, and an optimiser state that goes on with the same numbers."""

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.engine.optim import Optimisation, Position, lr_factor
from gan_kd.engine.train import Progress, StageTrainer
from gan_kd.recipe import Optimizer, Schedule, Stage


def factors(schedule, epochs=10, per_epoch=2):
    return [lr_factor(schedule, Position(step, epochs * per_epoch, epochs)) for step in range(epochs * per_epoch)]


def test_step_at_a_fraction_of_the_stage():
    """The adversarial stage: x0.1 at 0.8 of its epochs."""
    assert factors(Schedule("step", [0.8], 0.1)) == [1] * 16 + [0.1] * 4


def test_step_at_epochs():
    """The Faster R-CNN log: halved at epochs 5 and 20."""
    per_epoch = factors(Schedule("step", [5, 20], 0.5), epochs=30, per_epoch=1)
    assert per_epoch == [1] * 5 + [0.5] * 15 + [0.25] * 10


@pytest.mark.parametrize("epochs", [3, 5, 7, 10, 119, 221])
def test_a_fraction_that_is_a_whole_epoch_falls_on_its_first_batch(epochs):
    for epoch in range(1, epochs):
        drops = factors(Schedule("step", [epoch / epochs], 0.1), epochs, per_epoch=3)
        assert drops.index(0.1) == 3 * epoch


def test_cosine_goes_from_one_to_zero():
    values = factors(Schedule("cosine"))
    assert values[0] == 1 and values[10] == pytest.approx(0.5) and values[-1] < 0.01


def test_warm_up_is_linear_and_then_over():
    values = factors(Schedule("step", [0.8], 0.1, warmup_batches=4))
    assert values[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


class Recorded:
    """A step that keeps the positions of the distillers' and of the student's optimisers."""

    def __init__(self):
        self.warming, self.stage = [], []

    def warm_up(self, batch, position):
        self.warming.append(position)

    def __call__(self, batch, position):
        self.stage.append(position)


def positions(warmup, epochs=5, batches=4):
    step = Recorded()
    of = SimpleNamespace(step=step, loader=range(batches), stage=Stage("distilled", epochs), warmup=warmup)
    for epoch in range(warmup + epochs):
        for number in range(batches):
            of.progress = Progress(epoch=epoch, batch=number)
            StageTrainer._train(of, None)
    return step


@pytest.mark.parametrize("schedule", [Schedule("step", [0.8], 0.1), Schedule("step", [4], 0.1), Schedule("cosine")])
def test_distillers_warm_up_at_the_stages_first_rate(schedule):
    """The schedule belongs to the stage: no drop within the warm-up, and no jump back after it."""
    found = positions(warmup=2)
    assert [lr_factor(schedule, position) for position in found.warming] == [1.0] * 8
    without = [lr_factor(schedule, position) for position in positions(warmup=0).stage]
    assert [lr_factor(schedule, position) for position in found.stage] == without
    assert len({position.warmed + position.step for position in (*found.warming, *found.stage)}) == 28


def test_the_first_batches_rise_once_in_the_warm_up():
    schedule = Schedule("step", [0.8], 0.1, warmup_batches=4)
    found = positions(warmup=2)
    rates = [lr_factor(schedule, position) for position in (*found.warming, *found.stage)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, *[1] * (4 + 16), *[0.1] * 4])


def test_without_a_warm_up_positions_are_as_ever():
    assert positions(warmup=0).stage == [Position(step, 20, 5) for step in range(20)]


def layer(contexts, seed=3):
    mx.random.seed(seed)
    net = mx.gluon.nn.Dense(3, in_units=2)
    net.initialize(mx.init.Normal(1), ctx=contexts, force_reinit=True)
    return net


def train(net, optimisation, contexts, steps):
    rng = np.random.default_rng(1)
    whole = rng.standard_normal((4, 2))
    for step in steps:
        with autograd.record():
            losses = [
                (net(mx.nd.array(rows, ctx=context)) ** 2).sum() / len(whole)
                for rows, context in zip(np.array_split(whole, len(contexts)), contexts)
            ]
        autograd.backward(losses)
        optimisation.step(Position(step, 10, 1))
    return net.weight.data(contexts[0]).asnumpy()


OPTIMIZERS = [Optimizer("adam", 0.1), Optimizer("sgd", 0.1), Optimizer("sgd", 0.1, momentum=0.0)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adam", "momentum", "plain"])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_loaded_state_goes_on_as_if_never_stopped(optimizer, devices, tmp_path):
    contexts = [mx.cpu(k) for k in range(devices)]
    net = layer(contexts)
    undisturbed = Optimisation(net.collect_params(), optimizer, Schedule(), contexts)
    train(net, undisturbed, contexts, range(3))
    mx.nd.save(str(tmp_path / "state"), {**undisturbed.state(), "weight": net.weight.data(contexts[0])})
    saved = mx.nd.load(str(tmp_path / "state"))
    bias = net.bias.data(contexts[0]).copy()
    expected = train(net, undisturbed, contexts, range(3, 6))

    again = layer(contexts)
    again.weight.set_data(saved.pop("weight"))
    again.bias.set_data(bias)
    resumed = Optimisation(again.collect_params(), optimizer, Schedule(), contexts)
    resumed.load_state(saved)
    np.testing.assert_array_equal(train(again, resumed, contexts, range(3, 6)), expected)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adam", "momentum", "plain"])
def test_two_devices_step_as_one(optimizer):
    weights = []
    for devices in (1, 2):
        contexts = [mx.cpu(k) for k in range(devices)]
        net = layer(contexts)
        optimisation = Optimisation(net.collect_params(), optimizer, Schedule(), contexts)
        weights.append(train(net, optimisation, contexts, range(4)))
    np.testing.assert_allclose(*weights, rtol=1e-5)
