"""The WGAN losses, clamping and the separation of D's step from the student's, against NumPy from the equations."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.detectors.base import Level
from gan_kd.distill.base import Compared, Seen
from gan_kd.distill.ceiling import ceiling, gap_warnings
from gan_kd.distill.gan import GanDistiller
from gan_kd.gluon.optim import Position
from gan_kd.recipe import Gan, Optimizer
from tests.rig import compared

CHANNELS, SIZES, BATCH = [8, 6, 4], [8, 4, 1], 4
HERE = Position(0, 10, 1)
CPU = mx.cpu(0)
BOTH = [mx.cpu(0), mx.cpu(1)]


def maps(seed, contexts=(CPU,), grad=False):
    """The same batch whatever the number of devices: one list of maps a device."""
    rng = np.random.default_rng(seed)
    whole = [rng.standard_normal((BATCH, c, s, s)).astype("float32") for c, s in zip(CHANNELS, SIZES)]
    devices = []
    for rows, context in zip(np.array_split(np.arange(BATCH), len(contexts)), contexts):
        devices.append([mx.nd.array(m[rows], ctx=context) for m in whole])
        for m in devices[-1] if grad else []:
            m.attach_grad()
    return devices


def seen(teacher, student):
    """What a distiller gets: one entry a device."""
    return list(map(Seen, teacher, student))


def distiller(contexts=(CPU,), **config):
    mx.random.seed(7)
    return GanDistiller(Gan(**{"width": 8, **config}), compared(CHANNELS, SIZES, contexts))


def weights(gan):
    return {name: p.data(p.list_ctx()[0]).asnumpy().copy() for name, p in gan.dnet.collect_params().items()}


def scores(gan, device_maps):
    """D's scores as training sees them (batch statistics), NumPy, one (n,) a map."""
    with autograd.train_mode():
        return [s.asnumpy() for s in gan.dnet(*device_maps)]


def test_critic_loss_is_the_mean_difference_summed_over_maps():
    gan, teacher, student = distiller(), maps(0), maps(1)
    real, fake = scores(gan, teacher[0]), scores(gan, student[0])
    expected = sum(np.mean(r - f) for r, f in zip(real, fake))
    logs = gan.update(seen(teacher, student), BATCH, HERE)
    assert logs["critic"][0].asscalar() == pytest.approx(expected, rel=1e-4)
    assert logs["critic_real"][0].asscalar() == pytest.approx(np.mean([r.mean() for r in real]), rel=1e-4)
    assert logs["critic_fake"][0].asscalar() == pytest.approx(np.mean([f.mean() for f in fake]), rel=1e-4)


def test_student_loss_is_the_mean_fake_score_summed_over_maps():
    gan, teacher, student = distiller(weight=0.5), maps(0), maps(1)
    expected = 0.5 * sum(f.mean() for f in scores(gan, student[0]))
    with autograd.record():
        loss = gan.losses(Seen(teacher[0], student[0]), BATCH)["adversarial"]
    assert loss.asscalar() == pytest.approx(expected, rel=1e-4)


def test_one_step_of_sgd_moves_every_weight_down_its_gradient():
    """D minimises L_D: with plain SGD the change of each weight is -lr x dL_D/dw, taken by finite differences."""
    gan = distiller(norm="none", clamp=10.0, optimizer=Optimizer("sgd", lr=1e-3, momentum=0.0, wd=0.0))
    teacher, student = maps(0), maps(1)
    before = weights(gan)
    gan.update(seen(teacher, student), BATCH, HERE)
    rng = np.random.default_rng(3)

    def critic_loss(name, values):
        gan.dnet.collect_params()[name].set_data(mx.nd.array(values))
        pairs = zip(scores(gan, teacher[0]), scores(gan, student[0]))
        return sum(np.mean(r.astype("float64") - f) for r, f in pairs)

    after = weights(gan)
    for name, value in before.items():
        gan.dnet.collect_params()[name].set_data(mx.nd.array(value))
    for name, value in before.items():
        direction = rng.standard_normal(value.shape)
        step = 2e-4  # small, or LeakyReLU bends within it
        numeric = (critic_loss(name, value + step * direction) - critic_loss(name, value - step * direction)) / (
            2 * step
        )
        gan.dnet.collect_params()[name].set_data(mx.nd.array(value))
        analytic = ((before[name] - after[name]) / 1e-3 * direction).sum()
        assert analytic == pytest.approx(numeric, rel=5e-2, abs=2e-3), name


def test_gradient_for_the_student_passes_finite_differences():
    gan, student = distiller(norm="none"), maps(1, grad=True)
    with autograd.record():
        loss = gan.losses(Seen([], student[0]), BATCH)["adversarial"]
    loss.backward()
    rng = np.random.default_rng(4)
    for index, m in enumerate(student[0]):
        direction = mx.nd.array(rng.standard_normal(m.shape))
        moved = [
            [m + sign * 1e-2 * direction if k == index else other for k, other in enumerate(student[0])]
            for sign in (1, -1)
        ]
        up, down = (sum(s.astype("float64").mean() for s in scores(gan, side)) for side in moved)
        assert (m.grad * direction).sum().asscalar() == pytest.approx((up - down) / 2e-2, rel=5e-2, abs=1e-4)


def test_unit_slopes_count_every_map_alike():
    """The gradient keeps its direction at each map and has a norm of weight / batch a sample, in the mean square."""
    slopes = {}
    for kind in ("raw", "unit"):
        gan, student = distiller(slopes=kind, weight=0.5), maps(1, grad=True)
        with autograd.record():
            loss = gan.losses(Seen([], student[0]), BATCH)["adversarial"]
        loss.backward()
        slopes[kind] = [m.grad.asnumpy() for m in student[0]]
    for raw, unit in zip(slopes["raw"], slopes["unit"]):
        assert np.linalg.norm(unit) == pytest.approx(0.5 / BATCH * np.sqrt(BATCH), rel=1e-4)
        np.testing.assert_allclose(unit, raw * np.linalg.norm(unit) / np.linalg.norm(raw), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("contexts", [[CPU], [mx.cpu(0), mx.cpu(1)]])
def test_diagnosis_gap_bound_and_gradient(contexts):
    gan = distiller(contexts, norm="none", weight=0.5)
    gan.clamp()
    found = gan.diagnose(seen(maps(0, contexts), maps(1, contexts)), BATCH)
    [teacher], [student] = maps(0), maps(1, grad=True)
    gan = distiller(norm="none", weight=0.5)
    gan.clamp()
    expected = [f.mean() - r.mean() for r, f in zip(scores(gan, teacher), scores(gan, student))]
    np.testing.assert_allclose(found["critic_gap"], expected, rtol=1e-4, atol=1e-7)
    at_bound = []
    for critic in gan.dnet.discriminators:
        values = np.concatenate([p.data().asnumpy().ravel() for p in critic.collect_params().values()])
        at_bound.append((np.abs(values) == np.float32(0.03)).mean())
    assert found["critic_at_bound"] == pytest.approx(at_bound) and 0.05 < at_bound[0] < 0.3
    with autograd.record():
        score = 0.5 * sum(s.mean() for s in gan.dnet(*student))
    score.backward()
    lengths = [np.linalg.norm(m.grad.asnumpy()) for m in student]
    assert found["gradient_adversarial"] == pytest.approx(lengths, rel=1e-4)


def test_the_clamped_scales_of_batchnorm_count_at_the_bound_and_its_statistics_do_not():
    gan = distiller(clamp=0.5)
    gan.clamp()
    found = gan.diagnose(seen(maps(0), maps(1)), BATCH)["critic_at_bound"]
    for critic, share in zip(gan.dnet.discriminators, found):  # the scales alone are as large, in the first two maps
        sizes = {name: p.data().size for name, p in critic.collect_params().items() if p.grad_req != "null"}
        assert share == pytest.approx(sum(n for name, n in sizes.items() if "gamma" in name) / sum(sizes.values()))
    assert found[0] > found[2] == 0


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_diagnosis_leaves_the_critic_as_it_was(norm):
    """A gradient through D moves its BatchNorms' running statistics, which are in every checkpoint."""
    gan = distiller(norm=norm)
    gan.update(seen(maps(0), maps(1)), BATCH, HERE)
    before = {name: array.asnumpy() for name, array in gan.state().items()}
    gan.diagnose(seen(maps(2), maps(3)), BATCH)
    after = gan.state()
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name].asnumpy(), err_msg=name)


def test_every_weight_is_clamped_after_the_step_and_statistics_are_not():
    gan = distiller(clamp=0.03)
    before = max(np.abs(w).max() for w in weights(gan).values())
    gan.update(seen(maps(0), maps(1)), BATCH, HERE)
    after = weights(gan)
    assert before > 0.03
    for name, parameter in gan.dnet.collect_params().items():
        if parameter.grad_req != "null":
            assert np.abs(after[name]).max() <= np.float32(0.03), name
    assert any(np.abs(after[name]).max() > 0.03 for name in after if name.endswith("running_var"))


def test_clamping_holds_on_every_device():
    contexts = [mx.cpu(0), mx.cpu(1)]
    gan = distiller(contexts)
    for _ in range(2):
        gan.update(seen(maps(0, contexts), maps(1, contexts)), BATCH, HERE)
    for parameter in gan.dnet.collect_params().values():
        if parameter.grad_req != "null":
            first, second = (data.asnumpy() for data in parameter.list_data())
            assert np.abs(first).max() <= np.float32(0.03)
            np.testing.assert_array_equal(first, second)


def test_two_devices_give_the_weights_of_one():
    """Without BatchNorm, whose statistics are a device's own."""
    config = {"norm": "none", "optimizer": Optimizer("sgd", lr=0.1, momentum=0.9)}
    one, two = distiller(**config), distiller([mx.cpu(0), mx.cpu(1)], **config)
    for _ in range(3):
        one.update(seen(maps(0), maps(1)), BATCH, HERE)
        two.update(seen(maps(0, BOTH), maps(1, BOTH)), BATCH, HERE)
    for a, b in zip(weights(one).values(), weights(two).values()):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_critics_step_gives_the_student_no_gradient():
    student = maps(1, grad=True)
    distiller().update(seen(maps(0), student), BATCH, HERE)
    assert all(m.grad.asnumpy().any() == 0 for m in student[0])


def test_the_students_step_leaves_the_critic_unchanged():
    gan, student = distiller(), maps(1, grad=True)
    gan.update(seen(maps(0), student), BATCH, HERE)
    before = weights(gan)
    with autograd.record():
        loss = gan.losses(Seen([], student[0]), BATCH)["adversarial"]
    loss.backward()
    assert all(m.grad.asnumpy().any() for m in student[0])
    after = weights(gan)
    trained = [n for n, p in gan.dnet.collect_params().items() if p.grad_req != "null"]
    assert all(np.array_equal(before[name], after[name]) for name in trained)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_student_gets_the_gradient_of_the_score_and_the_critic_none(norm):
    gan, (student,) = distiller(weight=0.5, norm=norm), maps(1, grad=True)
    with autograd.record():
        score = 0.5 * sum(s.sum() for s in gan.dnet(*student)) / BATCH
    score.backward()
    plain = [m.grad.asnumpy().copy() for m in student]
    critic = [p for p in gan.dnet.collect_params().values() if p.grad_req != "null"]
    for parameter in critic:
        parameter.grad()[:] = 7
    with autograd.record():
        # As in a step: the maps are no leaves of the student's graph, and other losses are added.
        through = [2 * m for m in student]
        loss = gan.losses(Seen([], [t / 2 for t in through]), BATCH)["adversarial"]
        total = loss + sum(t.sum() for t in through)
    total.backward()
    assert loss.asscalar() == pytest.approx(score.asscalar(), rel=1e-5)
    for m, slope in zip(student, plain):
        np.testing.assert_allclose(m.grad.asnumpy(), slope + 2, rtol=1e-5)
    assert all((parameter.grad().asnumpy() == 7).all() for parameter in critic)


def test_several_critic_steps_are_as_many_single_ones():
    once, twice = distiller(critic_steps=1), distiller(critic_steps=2)
    for _ in range(2):
        once.update(seen(maps(0), maps(1)), BATCH, HERE)
    twice.update(seen(maps(0), maps(1)), BATCH, HERE)
    for a, b in zip(weights(once).values(), weights(twice).values()):
        np.testing.assert_array_equal(a, b)


def test_state_brings_back_the_same_next_step(tmp_path):
    gan = distiller()
    for _ in range(2):
        gan.update(seen(maps(0), maps(1)), BATCH, HERE)
    mx.nd.save(str(tmp_path / "state"), gan.state())
    again = distiller()
    again.load_state(mx.nd.load(str(tmp_path / "state")))
    for each in (gan, again):
        each.update(seen(maps(2), maps(3)), BATCH, HERE)
    for a, b in zip(weights(gan).values(), weights(again).values()):
        np.testing.assert_array_equal(a, b)


def test_unit_slopes_count_the_samples_of_all_devices():
    slopes = []
    for contexts in ((CPU,), (mx.cpu(0), mx.cpu(1))):
        gan = distiller(contexts, norm="none", slopes="unit")
        # Of the second half, a tenth: the devices' own norms would differ.
        student = [[m * scale for m in part] for part, scale in zip(maps(1, contexts), (1.0, 0.1))]
        if len(contexts) == 1:
            student = [[mx.nd.concat(m[:2], m[2:] * 0.1, dim=0) for m in student[0]]]
        for m in (m for part in student for m in part):
            m.attach_grad()
        with autograd.record():
            losses = gan.shares([Seen([], part) for part in student], BATCH)["adversarial"]
        autograd.backward(losses)
        slopes.append([np.concatenate([m.grad.asnumpy() for m in parts]) for parts in zip(*student)])
    for one, two in zip(*slopes):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-8)
        assert np.linalg.norm(one) == pytest.approx(BATCH**-0.5, rel=1e-4)


@pytest.mark.parametrize("kind", ["image", "patch"])
def test_no_mean_over_cells_exceeds_its_ceiling(kind):
    width, clamp = 8, 0.03
    rng, config = np.random.default_rng(0), Gan(width=width, norm="instance", clamp=clamp, kind=kind)
    gaps = []
    for trial in range(4):
        mx.random.seed(trial)
        gan = GanDistiller(config, Compared([Level("backbone", 6, 16, None)], (CPU,)))
        for name, parameter in gan.dnet.collect_params().items():
            if trial:
                parameter.set_data(mx.nd.array(rng.choice([-1, 1], parameter.shape) * clamp))
            if name.endswith("gamma"):
                parameter.set_data(mx.nd.full(parameter.shape, clamp))
        gan.clamp()
        real, fake = (mx.nd.array(rng.normal(mean, 3, (BATCH, 6, 12, 16))) for mean in (0, 2))
        low, high = gan.critics(real, fake)
        gaps.append(abs(float((high.mean() - low.mean()).asscalar())))
    assert 0 < max(gaps) <= ceiling(config, None) * (1 + 1e-5)


@pytest.mark.parametrize("norm", ["batch", "joint", "instance"])
@pytest.mark.parametrize("side, cells", [(16, 4), (12, 1), (6, 1), (5, 4), (3, 1)])
def test_no_clamped_critic_with_a_norm_exceeds_its_ceiling(norm, side, cells):
    """On random maps, and with the best critic there is: every scale and last weight at the clamp."""
    width, clamp = 8, 0.03
    most = ceiling(Gan(width=width, norm=norm, clamp=clamp), side)
    if norm == "instance" and cells == 1:
        assert most is None
        return
    assert most == pytest.approx(2 * cells * width * clamp**2)
    rng = np.random.default_rng(side)
    gaps = []
    for trial in range(4):
        mx.random.seed(trial)
        gan = GanDistiller(Gan(width=width, norm=norm, clamp=clamp), compared([6], [side]))
        for name, parameter in gan.dnet.collect_params().items():
            if parameter.grad_req != "null" and trial:
                parameter.set_data(mx.nd.array(rng.choice([-1, 1], parameter.shape) * clamp))
            if name.endswith("gamma"):
                parameter.set_data(mx.nd.full(parameter.shape, clamp))
        gan.clamp()
        real, fake = (mx.nd.array(rng.normal(mean, 3, (BATCH, 6, side, side))) for mean in (0, 2))
        with autograd.train_mode():
            low, high = gan.critics(real, fake)
        gaps.append(abs(float((high.mean() - low.mean()).asscalar())))
    assert 0 < max(gaps) <= most * (1 + 1e-5)


def test_a_gap_at_its_ceiling_or_below_zero_is_a_warning():
    config = Gan(width=32)
    assert ceiling(config, 16) == pytest.approx(8 * 32 * 0.03**2)
    at, below = gap_warnings(config, [16, 2, 1], [0.224, -3.6, 0.1])
    assert "0.224 of 0.23 at 16x16" in at and "-3.6 at 2x2" in below
    assert gap_warnings(config, [16, 2], [0.1, 0.1]) == []
    # Where scores are means over the cells, a quarter of it at 2x2 cells.
    assert ceiling(config, None) == ceiling(Gan(width=32, kind="patch"), 16) == pytest.approx(2 * 32 * 0.03**2)
    (at,) = gap_warnings(config, [None], [0.0575])
    assert "0.0575 of 0.0576 over all sizes" in at
    for other in ({"norm": "none"}, {"limit": "spectral"}, {"kind": "cell"}):
        assert ceiling(Gan(**other), 16) is None


def test_in_its_first_epochs_d_learns_and_the_student_does_not_learn_from_it():
    """As in the first two epochs of the authors' Faster R-CNN log."""
    gan, [student] = distiller(critic_only_epochs=2, match=1.0), maps(1, grad=True)
    part = seen(maps(0), [student])
    for step in range(10):  # five epochs of two steps
        before = weights(gan)
        gan.update(part, BATCH, Position(step, 10, 5))
        assert any(not np.array_equal(before[name], value) for name, value in weights(gan).items())
        with autograd.record():
            losses = gan.losses(part[0], BATCH)
            total = mx.nd.add_n(*losses.values())
        total.backward()
        assert set(losses) == {"adversarial", "adversarial_match"}
        moved = [np.abs(m.grad.asnumpy()).max() for m in student]
        assert all(slope > 0 for slope in moved) if step >= 4 else not any(moved)
        assert (losses["adversarial_match"].asscalar() > 0) == (step >= 4)


def test_maps_of_a_size_that_is_not_known_before():
    levels = [Level("backbone", 6, 16, None)]
    gan = GanDistiller(Gan(width=8, norm="instance", slopes="unit"), Compared(levels, (CPU,)))
    for shape in ((1, 6, 12, 16), (1, 6, 17, 8)):
        [teacher, student] = [mx.nd.random.normal(mean, 1, shape) for mean in (0, 1)]
        student.attach_grad()
        part = Seen([teacher], [student])
        assert set(gan.update([part], 1, HERE)) == {"critic", "critic_real", "critic_fake"}
        with autograd.record():
            loss = gan.losses(part, 1)["adversarial"]
        loss.backward()
        assert student.grad.norm().asscalar() == pytest.approx(1, rel=1e-3)
