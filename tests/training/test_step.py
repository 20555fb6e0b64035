"""One training step: who moves and who does not, and that devices add up."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.detectors.ssd.head import Outputs
from gan_kd.distill.base import Distiller, Seen
from gan_kd.distill.cosine_attention import attention
from gan_kd.errors import UsageError
from gan_kd.gluon.optim import Optimisation, Position
from gan_kd.recipe import Data, Distill, Gan, Optimizer, Recipe, Schedule, Stage, Student, Teacher
from gan_kd.training.networks import build_student, build_teacher, head_in_words
from gan_kd.training.step import Step
from tests.rig import BATCH, CLASSES, CPU, HERE, SIZE, batch, snapshot, step_of

ADAM = Optimizer("adam", 1e-3, beta1=0.5)


def recipe(head="teacher", distillers=("gan", "cosine_attention"), optimizer=ADAM, **gan):
    return Recipe(
        name="test",
        data=Data(size=SIZE),
        teacher=Teacher("mobilenet0.5", "random"),
        student=Student("mobilenet0.25", "random"),
        distill=Distill(head=head, gan=Gan(width=8, optimizer=optimizer, **gan)),
        stages={"first": Stage("distilled", 1, optimizer, distillers=list(distillers))},
    )


def setting(distillers=("gan", "cosine_attention"), contexts=(CPU,), head="teacher", optimizer=ADAM):
    """A Step with everything it moves, on fresh networks that are the same at every call."""
    return step_of(recipe(head, distillers, optimizer), contexts)


def cast(whole, **changes):
    """The batch in float64."""
    whole = whole._replace(**changes)
    images, *targets = (array.astype("float64") for array in (whole.images, *whole.targets))
    return whole._replace(images=images, targets=tuple(targets))


def equal(before, after):
    return all(np.array_equal(before[name], after[name]) for name in before)


def dnet(step):
    return step.distillers[0].dnet


@pytest.mark.parametrize("head", ["teacher", "student"])
def test_a_step_moves_student_and_critic_and_not_a_bit_of_the_teacher(head):
    step = setting(head=head)
    detector, teacher = step.networks.detector, step.networks.teacher
    before = {
        k: snapshot(b) for k, b in (("extractor", detector.extractor), ("head", detector.head), ("D", dnet(step)))
    }
    frozen = snapshot(teacher)
    step(batch(step.networks), HERE)
    assert not equal(before["extractor"], snapshot(detector.extractor))
    assert not equal(before["head"], snapshot(detector.head))
    assert not equal(before["D"], snapshot(dnet(step)))
    assert equal(frozen, snapshot(teacher))


def test_the_adapters_learn_whichever_head_is_used():
    for head in ("teacher", "student"):
        step = setting(head=head)
        adapters = step.networks.detector.adapters if head == "teacher" else step.networks.bridge
        before = snapshot(adapters)
        step(batch(step.networks), HERE)
        assert not equal(before, snapshot(adapters)), head


def test_the_adapters_of_an_own_head_rest_where_no_distiller_compares_maps():
    """In a stage without distillers after one with them, and with one that compares outputs alone."""
    step = setting(head="student")
    step(batch(step.networks), HERE)
    networks = step.networks
    before = snapshot(networks.bridge)
    optimisation = Optimisation(networks.parameters(), ADAM, Stage("distilled", 1).schedule, [CPU])
    Step(networks, [], optimisation, [CPU])(batch(networks), HERE)
    assert equal(before, snapshot(networks.bridge))


def test_the_students_own_head_is_exported_without_adapters():
    assert setting(head="student").networks.detector.adapters is None


@pytest.mark.parametrize(
    "head, words",
    [("teacher", "inherited, the teacher's weights and anchors"), ("student", "its own, distill.head is own")],
)
def test_the_log_says_which_head(head, words):
    teacher = build_teacher(recipe(head), CLASSES)
    student = build_student(recipe(head), CLASSES, "distilled", teacher).detector
    assert head_in_words(recipe(head), "distilled", student, teacher).endswith(words)


def test_warm_up_trains_the_critic_alone():
    step = setting()
    student, critic = snapshot(step.networks.detector), snapshot(dnet(step))
    step.warm_up(batch(step.networks), HERE)
    assert equal(student, snapshot(step.networks.detector))
    assert not equal(critic, snapshot(dnet(step)))


def test_the_student_rises_by_itself_after_a_warm_up():
    """Its schedule's first batches come after the distillers' own, which have risen in the warm-up."""
    step = setting(distillers=("gan",))
    step.optimisation.schedule = step.distillers[0].optimisation.schedule = Schedule("step", [0.8], 0.1, 9)
    step.warm_up(batch(step.networks), Position(0, 10, 1, 0))
    assert step.distillers[0].optimisation.lr == pytest.approx(0.1 * ADAM.lr)
    step(batch(step.networks), Position(0, 10, 1, 20))
    assert step.optimisation.lr == pytest.approx(0.1 * ADAM.lr)
    assert step.distillers[0].optimisation.lr == pytest.approx(ADAM.lr)


def test_losses_are_named_and_the_baseline_has_only_ssds():
    step = setting()
    names = set(step(batch(step.networks), HERE))
    assert names == {"conf", "loc", "adversarial", "cosine_attention", "critic", "critic_real", "critic_fake"}
    plain = setting(distillers=())
    assert set(plain(batch(plain.networks), HERE)) == {"conf", "loc"}


@pytest.mark.parametrize("head", ["teacher", "student"])
def test_outputs_are_those_of_both_heads(head):
    """Against the distiller by itself, on what teacher and student predict."""
    step = setting(distillers=("outputs",), head=head)
    whole = batch(step.networks)
    images, detector = mx.nd.array(whole.images), step.networks.detector
    with autograd.train_mode():
        maps = detector.extractor(images)
        student = detector.head(*(maps if detector.adapters is None else detector.adapters(*maps)))
    teacher = step.networks.teacher_head(*step.networks.teacher(images))
    seen = Seen([], [], (Outputs(*teacher), Outputs(*student)))
    expected = {name: parts[0].asscalar() for name, parts in step.distillers[0].shares([seen], BATCH).items()}
    before = snapshot(step.networks.teacher_head)
    found = step(whole, HERE)
    assert {name: found[name][0].asscalar() for name in expected} == pytest.approx(expected, rel=1e-3)
    assert set(found) == {"conf", "loc", "outputs", "outputs_boxes"}
    assert equal(before, snapshot(step.networks.teacher_head))
    diagnosed = step.diagnose(whole)
    assert {"gradient_outputs", "gradient_outputs_boxes", "gradient_detection"} <= set(diagnosed)
    assert all(len(values) == 6 for values in diagnosed.values()) and diagnosed["gradient_outputs"][0] > 0


class Intruder(Distiller):
    """Returns a loss, or a log, of a name that the step has already."""

    def __init__(self, loss=None, log=None):
        self.loss, self.log = loss, log

    def losses(self, seen, batch_size):
        return {self.loss: mx.nd.ones(1)} if self.loss else {}

    def update(self, seen, batch_size, position):
        return {self.log: [mx.nd.ones(1)]} if self.log else {}


@pytest.mark.parametrize(
    "intruder", [Intruder(loss="conf"), Intruder(loss="critic"), Intruder(log="critic"), Intruder(loss="adversarial")]
)
def test_a_name_that_another_part_returns_is_refused(intruder):
    step = setting(distillers=("gan",))
    step.distillers.append(intruder)
    with pytest.raises(UsageError, match="the distiller Intruder returns '(conf|critic|adversarial)', which another"):
        step(batch(step.networks), HERE)


def test_hybridized_and_plain_steps_agree():
    losses = []
    for compiled in (False, True):
        step = setting(("gan", "cosine_attention", "outputs"))
        if compiled:
            step.networks.hybridize()
        values = [step(batch(step.networks, seed), HERE) for seed in range(2)][-1]
        losses.append([sum(p.asscalar() for p in parts) for parts in values.values()])
    np.testing.assert_allclose(*losses, rtol=1e-3)


def gradients(contexts, distillers):
    """The student's gradients after one step, summed over the devices as the Trainer does.

    The second half of the images repeats the first, so that BatchNorm's statistics are the same over a half and over
    the whole; the targets of the halves differ.
    """
    # SGD that hardly moves: Adam's first step is the gradient's sign, which rounding decides where it is near zero.
    still = Optimizer("sgd", 1e-9)
    step = setting(distillers, contexts=contexts, optimizer=still)
    # BatchNorm over the few cells of the last maps magnifies rounding: float64 keeps it far below what is compared.
    for block in (step.networks.detector, step.networks.teacher, step.networks.teacher_head):
        block.cast("float64")
    if "gan" in distillers:
        dnet(step).cast("float64")
    whole = batch(step.networks)
    images = np.tile(whole.images[: BATCH // 2], (2, 1, 1, 1))
    step(cast(whole, images=images), HERE)
    # The Trainer has summed them already: every device holds the sum.
    parameters = step.networks.parameters().items()
    return {name: p.list_grad()[0].asnumpy() for name, p in parameters if p.grad_req != "null"}


@pytest.mark.parametrize(
    "distillers", [("gan", "cosine_attention"), ("outputs", "cwd", "feature_imitation", "information_map")]
)
def test_two_devices_give_the_gradients_of_one_with_the_whole_batch(distillers):
    one, two = gradients([mx.cpu(0)], distillers), gradients([mx.cpu(0), mx.cpu(1)], distillers)
    assert len(one) == len(two) > 100
    for (name, a), b in zip(one.items(), two.values()):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-6 * np.abs(a).max() + 1e-12, err_msg=name)


def test_an_uneven_split_keeps_the_batch_mean():
    """Three images on two devices: the losses are shares of one mean."""
    step = setting(distillers=(), contexts=[mx.cpu(0), mx.cpu(1)])
    losses = step(batch(step.networks, size=3), HERE)
    assert [len(parts) for parts in losses.values()] == [2, 2]
    assert all(np.isfinite(p.asscalar()) for parts in losses.values() for p in parts)


def everything(step):
    """All that a run goes on from, in a fixed order: parameters with BatchNorm's statistics and gradients on every
    device, the optimisers' moments."""
    found = []
    for block in (step.networks.detector, step.networks.bridge, step.networks.teacher, dnet(step)):
        for p in block.collect_params().values() if block is not None else ():
            found += [*p.list_data(), *(p.list_grad() if p.grad_req != "null" else ())]
    for state in (step.optimisation.state(), *(distiller.state() for distiller in step.distillers)):
        found += state.values()
    return [array.asnumpy() for array in found]


def assert_equal(before, after):
    assert len(before) == len(after)
    for a, b in zip(before, after):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("head", ["teacher", "student"])
def test_a_run_with_diagnoses_is_the_run_without(head):
    ends = []
    for diagnosed in (False, True):
        step = setting(("gan", "cosine_attention", "feature_imitation", "cwd", "information_map", "outputs"), head=head)
        step.networks.hybridize()
        mx.random.seed(3)
        np.random.seed(3)
        for seed, train in enumerate((step.warm_up, step, step)):
            losses = train(batch(step.networks, seed), HERE)
            if diagnosed:
                step.diagnose(batch(step.networks, seed))
        drawn = [mx.nd.random.uniform(shape=3).asnumpy(), np.random.rand(3)]
        values = [part.asnumpy() for parts in losses.values() for part in parts]
        ends.append([*everything(step), *values, *drawn])
    assert len(ends[0]) > 300
    assert_equal(*ends)


@pytest.mark.parametrize("contexts", [[CPU], [mx.cpu(0), mx.cpu(1)]])
def test_a_diagnosis_leaves_everything_as_it_is(contexts):
    step = setting(contexts=contexts)
    step.networks.hybridize()
    step(batch(step.networks), HERE)
    before = everything(step)
    step.diagnose(batch(step.networks, 1))
    assert_equal(before, everything(step))


def test_diagnosis_against_the_definitions():
    step = setting(("gan", "cosine_attention"))
    whole = batch(step.networks)
    found = step.diagnose(whole)
    detector, images = step.networks.detector, mx.nd.array(whole.images)
    teacher = step.networks.teacher(images)
    with autograd.train_mode():
        student = detector.adapters(*detector.extractor(images))
    assert found["maps"] == [8, 4, 2, 1, 1, 1]
    cosines = [(attention(s).asnumpy() * attention(t).asnumpy()).sum(axis=1).mean() for s, t in zip(student, teacher)]
    assert found["attention_cosine"] == pytest.approx(cosines, rel=1e-4)
    for m in student:
        m.attach_grad()
    with autograd.record():
        scale = mx.nd.array([1 / (whole.targets[0] > 0).sum()])
        conf, loc = step.networks.loss.loss(*detector.head(*student), *map(mx.nd.array, whole.targets), scale)
        total = conf + loc
    total.backward()
    assert found["gradient_detection"] == pytest.approx([np.linalg.norm(m.grad.asnumpy()) for m in student], rel=1e-3)
    assert {"critic_gap", "critic_at_bound", "gradient_adversarial", "gradient_cosine_attention"} <= set(found)
    assert {len(values) for values in found.values()} == {6}


def test_two_devices_diagnose_what_one_does():
    found = []
    for contexts in ([mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]):
        step = setting(contexts=contexts)
        for block in (step.networks.detector, step.networks.teacher, dnet(step)):
            block.cast("float64")
        whole = batch(step.networks)
        images = np.tile(whole.images[: BATCH // 2], (2, 1, 1, 1))  # as in `gradients`
        found.append(step.diagnose(cast(whole, images=images)))
    for name, values in found[0].items():
        assert found[1][name] == pytest.approx(values, rel=1e-5, abs=1e-9), name


@pytest.mark.parametrize("head", ["teacher", "student"])
def test_what_is_trained_has_its_names_in_files(head):
    """Each once, and in the order of Gluon's names, as Gluon's Trainer had it when states numbered them."""
    step = setting(head=head)
    networks = step.networks
    named = networks.parameters(step.distillers)
    blocks = (networks.detector.extractor, networks.detector.head, networks.detector.adapters, networks.bridge)
    gluon = {name: p for block in blocks if block is not None for name, p in block.collect_params().items()}
    assert [named[name] for name in step.optimisation.names] == [gluon[name] for name in sorted(gluon)]
    files = {**networks.detector.weights()}
    if networks.bridge is not None:
        files.update(networks.bridge._collect_params_with_prefix("bridge"))
    assert all(named[name] is files[name] for name in named)
    assert {name for name in files if name not in named} == {f"anchor_generators.{k}.anchors" for k in range(6)}
    step(batch(networks), HERE)
    kept = {name.rpartition(".")[0] for name in step.optimisation.state()}
    assert kept == {name for name, parameter in named.items() if parameter.grad_req != "null"}
    critic = dnet(step)._collect_params_with_prefix()
    assert set(step.distillers[0].optimisation.names) == set(critic)
