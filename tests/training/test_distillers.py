"""Distillers of a stage: what they may ask for, which maps they see, and parameters of their own."""

import dataclasses

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.errors import UsageError
from gan_kd.recipe import BoundedRegression, Data, Distill, FineGrained, Recipe, Stage, Student, Teacher, from_dict
from gan_kd.training.distillers import comparing_outputs, require_given
from tests.distill import own_methods
from tests.rig import BATCH, CPU, HERE, SIZE, batch, marks, snapshot, step_of
from tests.training.test_step import ADAM

OWN = "tests.distill.own_methods."
ADAPTED = f"{OWN}AdaptedImitation"


def recipe(*distillers, **distill):
    return Recipe(
        "test",
        data=Data(size=SIZE),
        teacher=Teacher("mobilenet0.5", "random"),
        student=Student("mobilenet0.25", "random"),
        distill=Distill(**distill),
        stages={"first": Stage("distilled", 1, ADAM, distillers=list(distillers))},
    )


@pytest.mark.parametrize(
    "of, sentence",
    [
        (
            recipe(f"{OWN}Curious"),
            "stages.first: the distiller tests.distill.own_methods.Curious needs captions, which the detector ssd does "
            "not give",
        ),
        (recipe("localization"), "distiller localization needs priors, which the detector ssd does not give .it gives"),
        (recipe("region_imitation"), "the distiller region_imitation needs priors, which the detector ssd does not"),
        (recipe(f"{OWN}Deep"), "Deep compares maps of the backbone, but the detector ssd has maps of the neck alone"),
        (recipe("cwd", places=["backbone"]), "the distiller cwd compares maps of the backbone, but the detector ssd"),
    ],
)
def test_a_stage_that_cannot_be_served_is_refused_in_one_sentence(of, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        require_given(of)
    assert "\n" not in str(caught.value)


def test_a_stage_that_can_be_served_is_not_refused():
    require_given(recipe("gan", "cosine_attention", "outputs"))
    require_given(recipe(f"{OWN}Deep", "outputs", places=["neck"]))  # what compares no maps has no place
    assert comparing_outputs(recipe("gan", "cwd")) is None
    assert comparing_outputs(recipe("gan", "outputs")) == "outputs"


def test_teacher_bounded_regression_on_ssd_in_a_step():
    """By a wide margin it is L_loc once more."""
    of = recipe("bounded_regression", head="own", bounded_regression=BoundedRegression(margin=1e6))
    step = step_of(of)
    whole = batch(step.networks)
    found = step.diagnose(whole)
    named = step(whole, HERE)
    bounded, loc = (named[name][0].asscalar() for name in ("bounded_regression", "loc"))
    assert bounded == pytest.approx(loc, rel=1e-5) and loc > 0
    assert len(found["gradient_bounded_regression"]) == 6 and found["gradient_bounded_regression"][0] > 0


def test_places_are_words_that_there_are():
    with pytest.raises(UsageError, match="distill.places.*nek.*did you mean neck"):
        from_dict({"name": "a", "distill": {"places": ["nek"]}})
    stage = {"trains": "distilled", "epochs": 1, "distillers": ["cwd"]}
    with pytest.raises(UsageError, match="distill.places is empty: name backbone, neck or both"):
        from_dict({"name": "a", "distill": {"places": []}, "teacher": {"weights": "zoo"}, "stages": {"a": stage}})


@pytest.mark.parametrize("head, channels", [("own", (128, 256)), ("inherit", (256, 512))])
def test_a_method_that_adapts_by_itself_sees_the_students_own_maps(head, channels):
    """Before the adapters that serve distillers alone, and behind those that are deployed."""
    step = step_of(recipe(ADAPTED, head=head))
    assert [layer.weight.shape[1] for layer in step.distillers[0].layers][:2] == list(channels)
    named = step(batch(step.networks), HERE)
    assert np.isfinite(named["adapted_imitation"][0].asscalar())
    assert not any(name.startswith("bridge") for name in step.optimisation.names)


def test_the_students_optimiser_moves_the_methods_parameters():
    step = step_of(recipe("cosine_attention", ADAPTED, head="own"))
    layers = step.distillers[1].layers
    assert "adapted_imitation.0.weight" in step.optimisation.names
    assert any(name.startswith("bridge") for name in step.optimisation.names)  # for the other one
    before = snapshot(layers)
    step(batch(step.networks), HERE)
    assert all(not np.array_equal(before[name], after) for name, after in snapshot(layers).items())


def test_devices_keep_the_methods_parameters_alike():
    step = step_of(recipe(ADAPTED), [mx.cpu(0), mx.cpu(1)])
    weight = step.distillers[0].parameters()["0.weight"]
    before = weight.list_data()[0].asnumpy()
    step(batch(step.networks), HERE)
    one, other = (data.asnumpy() for data in weight.list_data())
    np.testing.assert_array_equal(one, other)
    assert (one != before).all()


def test_a_name_that_the_student_has_is_refused(monkeypatch):
    monkeypatch.setattr(own_methods.AdaptedImitation, "name", "features")
    taken = {"0.weight": mx.gluon.Parameter("weight", shape=(1,))}
    step = step_of(recipe("cosine_attention"))
    name = next(name for name in step.networks.parameters() if name.startswith("features."))
    monkeypatch.setattr(own_methods.AdaptedImitation, "parameters", lambda self: {name[9:]: taken["0.weight"]})
    with pytest.raises(UsageError, match=f"AdaptedImitation has a parameter {name}, a name that the student has"):
        step_of(recipe(ADAPTED))


def with_regions(step, whole, objects):
    """The batch with what the loader would have marked for the step's distillers."""
    marked = [method.regions for method in step.distillers if method.regions is not None]
    return whole._replace(regions=tuple(marks(regions, objects, SIZE) for regions in marked))


def drawn_objects(seed=0):
    """Of each image two boxes of one class, (2, 5)."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, SIZE / 2, (BATCH, 2, 2)), rng.uniform(8, SIZE / 2, (BATCH, 2, 2))
    return np.concatenate([corner, corner + size, np.zeros((BATCH, 2, 1))], axis=2).astype("float32")


@pytest.mark.parametrize("head", ["own", "inherit"])
def test_fine_grained_imitation_in_a_step(head):
    of = recipe("fine_grained", head=head, fine_grained=FineGrained(weight=1.0, quiet=0, scope="per_map"))
    step, objects = step_of(of), drawn_objects()
    before = snapshot(step.distillers[0].layers)
    whole = with_regions(step, batch(step.networks), objects)
    expected = by_hand(step, whole)
    named = step(whole, HERE)
    assert named["fine_grained"][0].asscalar() == pytest.approx(expected, rel=1e-4)
    assert any(not np.array_equal(before[name], after) for name, after in snapshot(step.distillers[0].layers).items())
    found = step.diagnose(whole)
    assert all(share > 0 for share in found["fine_grained_cells"])
    assert all(np.isfinite(found["gradient_fine_grained"])) and max(found["gradient_fine_grained"]) > 0


def by_hand(step, whole):
    """The loss from the maps of both networks."""
    networks, method = step.networks, step.distillers[0]
    x = mx.nd.array(whole.images)
    real = networks.teacher(x)
    with autograd.train_mode():
        fake = networks.detector.extractor(x)
        if networks.detector.adapters is not None:
            fake = networks.detector.adapters(*fake)
    total = 0.0
    for layer, (own, other), mask in zip(method.layers, networks.pairs, whole.regions[0]):
        squares = mask[:, None] * (layer(fake[own]).asnumpy().astype(float) - real[other].asnumpy()) ** 2
        total += squares.sum() / (2 * max(mask.sum(), 1))
    return total


def test_fine_grained_imitation_is_the_same_on_two_devices():
    """But for BatchNorm, whose statistics are made one."""
    losses = []
    for contexts in ([CPU], [mx.cpu(0), mx.cpu(1)]):
        of = recipe("fine_grained", fine_grained=FineGrained(weight=1.0, quiet=0))
        of = dataclasses.replace(of, train=dataclasses.replace(of.train, sync_bn=True))
        step = step_of(of, contexts)
        named = step(with_regions(step, batch(step.networks), drawn_objects()), HERE)
        losses.append(sum(part.asscalar() for part in named["fine_grained"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_method_is_given_what_the_detection_loss_assigned_and_the_truth():
    step = step_of(recipe(f"{OWN}OnPositives"), [mx.cpu(0), mx.cpu(1)])
    whole = batch(step.networks)
    named = step(whole, HERE)
    seen = step.distillers[0].seen
    classes, offsets = (
        np.concatenate([part.assigned[key].asnumpy() for part in seen]) for key in ("classes", "offsets")
    )
    np.testing.assert_array_equal(classes, whole.targets[0])
    np.testing.assert_array_equal(offsets, whole.targets[1])
    np.testing.assert_array_equal(np.concatenate([part.truth for part in seen]), whole.truth)
    assert sum(part.asscalar() for part in named["on_positives"]) > 0
    assert len(step.diagnose(whole)["gradient_on_positives"]) == 6
