"""Schedules by hand, and an optimiser state that goes on with the same numbers."""

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.gluon.optim import Optimisation, Position, lr_factor
from gan_kd.recipe import Optimizer, Schedule
from gan_kd.training.trainer import Progress, StageTrainer


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
    of = SimpleNamespace(step=step, loader=range(batches), epochs=epochs, warmup=warmup)
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
    undisturbed = Optimisation(net._collect_params_with_prefix(), optimizer, Schedule(), contexts)
    train(net, undisturbed, contexts, range(3))
    mx.nd.save(str(tmp_path / "state"), {**undisturbed.state(), "weight": net.weight.data(contexts[0])})
    saved = mx.nd.load(str(tmp_path / "state"))
    bias = net.bias.data(contexts[0]).copy()
    expected = train(net, undisturbed, contexts, range(3, 6))

    again = layer(contexts)
    again.weight.set_data(saved.pop("weight"))
    again.bias.set_data(bias)
    resumed = Optimisation(again._collect_params_with_prefix(), optimizer, Schedule(), contexts)
    resumed.load_state(saved)
    np.testing.assert_array_equal(train(again, resumed, contexts, range(3, 6)), expected)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adam", "momentum", "plain"])
def test_two_devices_step_as_one(optimizer):
    weights = []
    for devices in (1, 2):
        contexts = [mx.cpu(k) for k in range(devices)]
        net = layer(contexts)
        optimisation = Optimisation(net._collect_params_with_prefix(), optimizer, Schedule(), contexts)
        weights.append(train(net, optimisation, contexts, range(4)))
    np.testing.assert_allclose(*weights, rtol=1e-5)


CPU = [mx.cpu(0)]


def saved(optimizer, steps=3, contexts=CPU):
    """A layer after some steps, its state, and its weight after three steps more."""
    net = layer(contexts)
    optimisation = Optimisation(net._collect_params_with_prefix(), optimizer, Schedule(), contexts)
    train(net, optimisation, contexts, range(steps))
    state = {name: array.copy() for name, array in optimisation.state().items()}
    weight, bias = (parameter.data(contexts[0]).copy() for parameter in (net.weight, net.bias))
    return (weight, bias), state, train(net, optimisation, contexts, range(steps, steps + 3))


def resumed(optimizer, values, state, contexts=CPU):
    """The weight of a layer with these values and this state after three steps."""
    net = layer(contexts, seed=5)
    for parameter, value in zip((net.weight, net.bias), values):
        parameter.set_data(value)
    optimisation = Optimisation(net._collect_params_with_prefix(), optimizer, Schedule(), contexts)
    optimisation.load_state(state)
    return train(net, optimisation, contexts, range(3, 6))


@pytest.mark.parametrize(
    "optimizer, moments", zip(OPTIMIZERS, (("0", "1"), ("0",), ())), ids=["adam", "momentum", "plain"]
)
def test_a_state_is_keyed_by_names_in_files(optimizer, moments):
    _, state, _ = saved(optimizer)
    assert set(state) == {f"{name}.{part}" for name in ("bias", "weight") for part in (*moments, "count")}
    assert state["weight.count"].asscalar() == 3


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adam", "momentum", "plain"])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_state_with_numbers_for_names_gives_the_same_next_step(optimizer, devices):
    """As checkpoints had it before names: numbered in the order of Gluon's names, bias before weight."""
    contexts = [mx.cpu(k) for k in range(devices)]
    values, state, expected = saved(optimizer, contexts=contexts)
    numbers = {"bias": "0", "weight": "1"}
    numbered = {f"{numbers[name]}.{part}": state[f"{name}.{part}"] for name, part in (key.split(".") for key in state)}
    np.testing.assert_array_equal(resumed(optimizer, values, numbered, contexts), expected)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: {f"other.{key}": value for key, value in s.items()}, "has other.bias, which is not trained here"),
        (lambda s: {f"7{key[-2:]}": value for key, value in s.items()}, "has 7, which is not trained here"),
        (lambda s: {key: value for key, value in s.items() if "bias" not in key}, "not of what is trained here: bias"),
        (lambda s: {**s, "weight.0": s["bias.0"]}, r"of weight is \(3,\), not \(3, 2\)"),
        (lambda s: {key: value for key, value in s.items() if "count" not in key}, "not of what is trained here"),
    ],
)
def test_a_state_of_other_parameters_is_refused_in_a_sentence(change, message):
    values, state, _ = saved(OPTIMIZERS[0])
    with pytest.raises(ValueError, match=message) as raised:
        resumed(OPTIMIZERS[0], values, change(state))
    assert "\n" not in str(raised.value)


def test_a_state_before_the_first_step_is_empty_and_loads():
    values, state, expected = saved(OPTIMIZERS[0], steps=0)
    assert state == {}
    net = layer(CPU)
    optimisation = Optimisation(net._collect_params_with_prefix(), OPTIMIZERS[0], Schedule(), CPU)
    optimisation.load_state(state)
    np.testing.assert_array_equal(train(net, optimisation, CPU, range(3)), expected)


def test_the_trainer_keeps_the_order_of_gluons_names():
    """Old checkpoints number parameters by it, whatever the names in files are."""
    net = mx.gluon.nn.Dense(3, in_units=2)
    net.initialize()
    named = {"a": net.weight, "b": net.bias}
    assert Optimisation(named, OPTIMIZERS[0], Schedule(), CPU).names == ["b", "a"]
