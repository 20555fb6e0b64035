"""The keys of distill.gan beyond the paper: cells, condition, hinge, limits, standardised input, matched layers."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.distill.base import Seen
from gan_kd.distill.discriminator import DNet
from gan_kd.distill.gan import GanDistiller
from gan_kd.distill.limits import Spectral, input_gradient, penalise
from gan_kd.gluon.optim import Position
from gan_kd.recipe import Gan, Optimizer
from tests.rig import compared

CHANNELS, SIZES, BATCH = [8, 6, 4], [6, 3, 1], 4
HERE = Position(0, 10, 1)
ONE, BOTH = [mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]
# The design that results/study calls A; F is the same with critic_steps 0.
PAIRED = {
    "kind": "cell", "condition": "teacher", "loss": "hinge", "limit": "spectral", "input": "standard", "norm": "none",
    "match": 2.0, "width": 8, "weight": 0.5,
}  # fmt: skip


def maps(seed, contexts=ONE):
    rng = np.random.default_rng(seed)
    whole = [rng.standard_normal((BATCH, c, s, s)) for c, s in zip(CHANNELS, SIZES)]
    rows = np.array_split(np.arange(BATCH), len(contexts))
    return [[mx.nd.array(m[part], ctx=context) for m in whole] for part, context in zip(rows, contexts)]


def seen(real, fake, contexts=ONE):
    return list(map(Seen, maps(real, contexts), maps(fake, contexts)))


def distiller(contexts=ONE, **config):
    mx.random.seed(7)
    return GanDistiller(Gan(**{"width": 8, "norm": "none", **config}), compared(CHANNELS, SIZES, contexts, seed=5))


def weights(gan):
    return {name: p.list_data()[0].asnumpy().copy() for name, p in gan.dnet._collect_params_with_prefix().items()}


def cell_scores(critic, x):
    """(n, cells) scores and the hidden layers of a cell critic in NumPy."""
    hidden = []
    for layer in critic.layers:
        if hasattr(layer, "weight"):
            weight, bias = (p.data().asnumpy().astype("float64") for p in (layer.weight, layer.bias))
            x = np.einsum("nchw,fc->nfhw", x, weight[:, :, 0, 0]) + bias[:, None, None]
        else:
            x = np.where(x > 0, x, 0.2 * x)
            hidden.append(x)
    return x.reshape(len(x), -1), hidden


def sides(gan, part):
    """What D is shown of the teacher and the student, standardised and side by side, in NumPy from the definitions."""
    found = []
    for t, s in zip(part.teacher, part.student):
        t, s = (m.asnumpy().astype("float64") for m in (t, s))
        mean, deviation = t.mean(axis=(0, 2, 3), keepdims=True), t.std(axis=(0, 2, 3), keepdims=True)
        scale = deviation + 0.05 * np.sqrt((deviation**2).mean())
        t, s = (t - mean) / scale, (s - mean) / scale
        found.append((np.concatenate([t, t], axis=1), np.concatenate([s, t], axis=1)))
    return found


def by_definition(gan, part):
    """L_D, mean D(S(x)) summed over maps, and the matched layers' distance."""
    critic_loss, fooled, distances = 0.0, 0.0, []
    for critic, (real, fake) in zip(gan.dnet.discriminators, sides(gan, part)):
        (low, of_real), (high, of_fake) = cell_scores(critic, real), cell_scores(critic, fake)
        critic_loss += np.maximum(0, 1 + low).mean() + np.maximum(0, 1 - high).mean()
        fooled += high.mean()
        distances += [np.abs(a - b).mean() for a, b in zip(of_real, of_fake)]
    return critic_loss, fooled, np.mean(distances)


def test_the_conditional_cell_critic_is_that_of_the_equations():
    gan, [part] = distiller(**PAIRED), seen(0, 1)
    gan.standard.see([part])
    critic_loss, fooled, distance = by_definition(gan, part)
    found = gan.losses(part, BATCH)
    assert {name: loss.asscalar() for name, loss in found.items()} == {
        "adversarial": pytest.approx(0.5 * fooled, rel=1e-3),
        "adversarial_match": pytest.approx(2.0 * distance, rel=1e-3),
    }
    gan = distiller(**PAIRED)  # its statistics count a batch once
    assert gan.update([part], BATCH, HERE)["critic"][0].asscalar() == pytest.approx(critic_loss, rel=1e-3)


def test_the_students_gradient_passes_finite_differences():
    gan, [part] = distiller(**PAIRED), seen(0, 1)
    gan.standard.see([part])
    for m in part.student:
        m.attach_grad()
    with autograd.record():
        loss = mx.nd.add_n(*gan.losses(part, BATCH).values())
    loss.backward()
    rng = np.random.default_rng(4)
    for index, m in enumerate(part.student):
        direction = rng.standard_normal(m.shape)
        values = []
        for sign in (1, -1):
            moved = [
                mx.nd.array(other.asnumpy() + (sign * 1e-3 * direction if k == index else 0))
                for k, other in enumerate(part.student)
            ]
            _, fooled, distance = by_definition(gan, part._replace(student=moved))
            values.append(0.5 * fooled + 2.0 * distance)
        numeric = (values[0] - values[1]) / 2e-3
        assert (m.grad.asnumpy() * direction).sum() == pytest.approx(numeric, rel=3e-2, abs=1e-3)


CONFIGS = {
    "paired": PAIRED,
    "joint norm, matched": {"norm": "joint", "match": 1.0},
    "penalty": {"limit": "penalty", "input": "standard"},
    "conditional, penalty, cells": {"kind": "cell", "condition": "teacher", "limit": "penalty"},
    "spectral image": {"limit": "spectral", "loss": "hinge"},
    "patch, penalty": {"kind": "patch", "limit": "penalty"},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_resumed_critic_takes_the_same_next_steps(config, tmp_path):
    gan = distiller(**config)
    for step in range(2):
        gan.update(seen(step, 10 + step), BATCH, Position(step, 10, 1))
    mx.nd.save(str(tmp_path / "state"), gan.state())
    again = distiller(**config)
    again.load_state(mx.nd.load(str(tmp_path / "state")))
    ends = []
    for each in (gan, again):
        each.update(seen(5, 6), BATCH, Position(2, 10, 1))
        losses = each.losses(seen(7, 8)[0], BATCH)
        ends.append([*weights(each).values(), *(loss.asnumpy() for loss in losses.values())])
    for a, b in zip(*ends):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("config", [c for n, c in CONFIGS.items() if "joint" not in n])
def test_two_devices_train_the_critic_of_one(config):
    """Without BatchNorm, whose statistics are a device's own."""
    optimizer = Optimizer("sgd", lr=0.01, momentum=0.9)
    one, two = (distiller(contexts, optimizer=optimizer, **config) for contexts in (ONE, BOTH))
    for step in range(3):
        position = Position(step, 10, 1)
        one.update(seen(step, 10 + step), BATCH, position)
        logs = two.update(seen(step, 10 + step, BOTH), BATCH, position)
        assert len(logs["critic"]) == 2
    for (name, a), b in zip(weights(one).items(), weights(two).values()):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, err_msg=name)
    for parameter in two.dnet.collect_params().values():
        first, second = (data.asnumpy() for data in parameter.list_data())
        np.testing.assert_array_equal(first, second)


def test_a_frozen_critic_stays_as_it_was_drawn_and_still_matches():
    gan = distiller(**{**PAIRED, "critic_steps": 0})
    before = weights(gan)
    assert gan.update(seen(0, 1), BATCH, HERE) == {}
    for name, value in weights(gan).items():
        np.testing.assert_array_equal(before[name], value)
    assert gan.losses(seen(0, 1)[0], BATCH)["adversarial_match"].asscalar() > 0
    assert gan.standard.batches == 1


@pytest.mark.parametrize("kind", ["image", "cell"])
def test_spectral_norms_are_brought_to_one_and_follow_a_moving_weight(kind):
    dnet = critic_of(kind)
    rng = np.random.default_rng(0)

    def norms():
        found = dnet._collect_params_with_prefix().items()
        return [np.linalg.norm(p.data().asnumpy().reshape(p.shape[0], -1), 2) for n, p in found if "weight" in n]

    for parameter in dnet.collect_params(".*weight").values():
        parameter.set_data(mx.nd.array(rng.normal(0, 0.5, parameter.shape)))
    large = norms()
    spectral = Spectral(dnet)
    first = norms()
    assert max(large) > 2 and all(norm == pytest.approx(min(1, old), rel=1e-5) for norm, old in zip(first, large))
    for _ in range(20):
        for name, parameter in dnet._collect_params_with_prefix().items():
            if "weight" in name:
                moved = parameter.data().asnumpy() * 1.05 + 0.005 * rng.standard_normal(parameter.shape)
                parameter.set_data(mx.nd.array(moved))
        spectral.project()
        assert max(norms()) < 1.1  # one power iteration a step
    assert max(norms()) > 0.95


def critic_of(kind, condition=1, known=True):
    mx.random.seed(3)
    dnet = DNet([condition * c for c in CHANNELS], SIZES if known else [None] * 3, 6, "none", kind)
    dnet.initialize(mx.init.Normal(0.5), force_reinit=True)
    return dnet


@pytest.mark.parametrize("kind, known", [("image", True), ("cell", True), ("image", False), ("patch", False)])
def test_the_chain_of_transposed_convolutions_is_the_scores_gradient(kind, known):
    dnet = critic_of(kind, known=known)
    for critic, m in zip(dnet.discriminators, maps(0)[0][: None if known else 1]):
        m.attach_grad()
        with autograd.record():
            score = critic(m).sum()
        score.backward()
        np.testing.assert_allclose(input_gradient(critic, m).asnumpy(), m.grad.asnumpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind, given", [("image", False), ("image", True), ("cell", False), ("cell", True)])
def test_the_penaltys_gradient_passes_finite_differences(kind, given):
    # In float64, with steps so small that no LeakyReLU bends within them: there the slope itself jumps.
    dnet = critic_of(kind, 1 + given)
    dnet.cast("float64")
    points = [mx.nd.concat(*pair, dim=1) if given else pair[0] for pair in zip(maps(0)[0], maps(1)[0])]
    points = [point.astype("float64") for point in points]
    parameters = {n: p for n, p in dnet._collect_params_with_prefix().items() if n.endswith("weight")}

    def zero():
        for parameter in dnet.collect_params().values():
            parameter.zero_grad()

    def value():
        zero()
        return float(penalise(dnet, points, given, 1.0).asscalar())

    value()
    gradients = {name: p.grad().asnumpy().copy() for name, p in parameters.items()}
    rng = np.random.default_rng(1)
    for name, parameter in parameters.items():
        before, direction = parameter.data().asnumpy(), rng.standard_normal(parameter.shape)
        ends = []
        for sign in (1, -1):
            parameter.set_data(mx.nd.array(before + sign * 1e-7 * direction, dtype="float64"))
            ends.append(value())
        parameter.set_data(mx.nd.array(before, dtype="float64"))
        numeric = (ends[0] - ends[1]) / 2e-7
        assert (gradients[name] * direction).sum() == pytest.approx(numeric, rel=1e-4, abs=1e-5), name


def test_the_penalty_is_added_to_the_critics_loss_and_its_gradient():
    """With plain SGD one step with and one without differ by -lr x the penalty's gradient at the drawn points."""
    plain = {"limit": "none", "optimizer": Optimizer("sgd", lr=1e-2, momentum=0.0, wd=0.0)}
    without, with_ = distiller(**plain), distiller(**{**plain, "limit": "penalty", "penalty": 3.0})
    start = weights(without)
    logs = [gan.update(seen(0, 1), BATCH, HERE)["critic"][0].asscalar() for gan in (without, with_)]
    share = np.random.default_rng([5, 0, 0]).random(BATCH).astype("float32")[:, None, None, None]
    real, fake = maps(0)[0], maps(1)[0]
    points = [mx.nd.array(share * r.asnumpy() + (1 - share) * f.asnumpy()) for r, f in zip(real, fake)]
    again = distiller(**plain)
    for parameter in again.dnet.collect_params().values():
        parameter.zero_grad()
    penalty = penalise(again.dnet, points, False, 3.0 / BATCH).asscalar()
    assert logs[1] - logs[0] == pytest.approx(penalty, rel=1e-3)
    for name, parameter in again.dnet._collect_params_with_prefix().items():
        expected = weights(without)[name] - 1e-2 * parameter.grad().asnumpy()
        np.testing.assert_allclose(weights(with_)[name], expected, rtol=1e-3, atol=1e-6)
        assert not np.array_equal(start[name], weights(without)[name])


@pytest.mark.parametrize("contexts", [ONE, BOTH])
def test_a_diagnosis_names_both_losses_and_changes_nothing(contexts):
    gan = distiller(contexts, **PAIRED)
    gan.update(seen(0, 1, contexts), BATCH, HERE)
    before = {name: array.asnumpy() for name, array in gan.state().items()}
    found = gan.diagnose(seen(2, 3, contexts), BATCH)
    assert set(found) == {"gradient_adversarial", "gradient_adversarial_match", "critic_gap"}
    assert {len(values) for values in found.values()} == {len(SIZES)}
    for name, array in gan.state().items():
        np.testing.assert_array_equal(before[name], array.asnumpy(), err_msg=name)
