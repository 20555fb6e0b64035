"""A pair of networks and a distiller that a user names: one step, a file that loads alone, whole runs, wrong names."""

import json

import mxnet as mx
import numpy as np
import pytest

from gan_kd.detectors.saved import describe, load_detector, save_detector
from gan_kd.distill import custom
from gan_kd.errors import UsageError
from gan_kd.recipe import Data, Distill, Gan, Recipe, Stage, Student, Teacher
from gan_kd.training.folder import open_folder
from gan_kd.training.networks import build_student
from tests.distill import own_methods
from tests.rig import CLASSES, HERE, SIZE, batch, step_of
from tests.training import test_run
from tests.training.test_step import ADAM

OWN = "tests.distill.own_methods.ScaledImitation"


def recipe(student, taps=None, arguments=None, distillers=("gan", OWN)):
    return Recipe(
        name="test",
        data=Data(size=SIZE),
        teacher=Teacher("mobilenet0.5", "random"),
        student=Student(student, "random", taps),
        distill=Distill(gan=Gan(width=8), custom={OWN: arguments or {}}),
        stages={"first": Stage("distilled", 1, ADAM, distillers=list(distillers))},
    )


@pytest.mark.parametrize("student", ["resnet18_v2", "mobilenetv3_small", "mobilenetv2_0.25"])
def test_any_student_learns_from_any_teacher_and_its_file_loads_alone(student, tmp_path):
    of = recipe(student)
    step = step_of(of)
    detector = step.networks.detector
    before = {name: p.data().copy() for name, p in detector.weights().items() if p.grad_req != "null"}
    named = step(batch(step.networks), HERE)
    assert {"conf", "loc", "adversarial", "scaled_imitation", "critic", "scale_distance"} <= named.keys()
    assert all(np.isfinite(loss.asscalar()) for losses in named.values() for loss in losses)
    after = detector.weights()
    moved = [
        name for name, value in before.items() if not np.array_equal(value.asnumpy(), after[name].data().asnumpy())
    ]
    assert any(name.startswith("features") for name in moved)
    assert any(name.startswith("adapters") for name in moved) == (detector.adapters is not None)

    path = tmp_path / "best.params"
    about = describe(of, "distilled", detector, "0123")
    assert about["teacher"] == {"backbone": of.teacher.backbone, "sha256": "0123"}
    assert about["distillers"] == ["gan", OWN]
    save_detector(detector, path, about)
    x = mx.nd.random.normal(shape=(1, 3, SIZE, SIZE))
    loaded, meta = load_detector(path)
    assert meta["taps"] and meta["head_taps"] == ["relu22_fwd", "relu26_fwd"]
    np.testing.assert_array_equal(loaded(x)[1].asnumpy(), detector(x)[1].asnumpy())


def test_taps_of_ones_own_travel_with_the_file(tmp_path):
    own = recipe("mobilenet0.25", ["relu20_fwd", "relu26_fwd"], distillers=[OWN])
    networks = build_student(own, CLASSES, "baseline", None)
    path = tmp_path / "best.params"
    save_detector(networks.detector, path, describe(own, "baseline", networks.detector))
    assert json.loads((tmp_path / "best.json").read_text())["taps"] == ["relu20_fwd", "relu26_fwd"]
    assert load_detector(path)[1] == load_detector(path, own)[1]
    with pytest.raises(UsageError, match="is tapped at relu20_fwd, relu26_fwd, but not in recipe test"):
        load_detector(path, recipe("mobilenet0.25"))


def test_own_distiller_trains_its_own_parameters_and_goes_on_from_its_state():
    of = recipe("mobilenet0.25", arguments={"weight": 0.5, "lr": 0.2}, distillers=[OWN])
    step, twin = step_of(of), step_of(of)
    (first,), (second,) = step.distillers, twin.distillers
    assert (first.weight, first.lr) == (0.5, 0.2)
    step(batch(step.networks), HERE)
    learnt = first.state()["scales"].asnumpy()
    assert (learnt != 1).all()
    second.load_state(first.state())
    np.testing.assert_array_equal(second.state()["scales"].asnumpy(), learnt)
    before, after = (step(batch(step.networks, seed=1), HERE)["scale_distance"][0].asscalar() for _ in range(2))
    assert after < before


def warming(name, arguments):
    stage = Stage("distilled", 1, distillers=["gan", name])
    return Recipe("test", distill=Distill(custom={name: arguments}), stages={"a": stage})


def test_the_warm_up_of_ones_own_distillers_is_noted(tmp_path, monkeypatch):
    assert custom.load_all(warming(OWN, {})) == {}
    monkeypatch.setattr(own_methods.ScaledImitation, "warmup_epochs", 2)
    assert custom.load_all(warming(OWN, {})) == {OWN: 2}
    open_folder(tmp_path / "run", warming(OWN, {}), False, {OWN: 2}).close()
    assert json.loads((tmp_path / "run/environment.json").read_text())["warmup_epochs"] == {OWN: 2}
    open_folder(tmp_path / "other", warming(OWN, {}), False, {}).close()
    assert "warmup_epochs" not in json.loads((tmp_path / "other/environment.json").read_text())


def test_a_warm_up_that_is_an_argument_is_noted(tmp_path, monkeypatch):
    (tmp_path / "patient.py").write_text(
        "from gan_kd.distill.base import Distiller\nclass Patient(Distiller):\n    name = 'patient'\n"
        "    def __init__(self, compared, warmup_epochs=0):\n        self.warmup_epochs = warmup_epochs\n"
    )
    monkeypatch.chdir(tmp_path)
    assert custom.load_all(warming("patient.Patient", {"warmup_epochs": 3})) == {"patient.Patient": 3}


@pytest.mark.parametrize(
    "name, arguments, sentence",
    [
        ("no_such_package.Method", {}, "its module no_such_package cannot be imported .*ModuleNotFoundError"),
        ("tests.distill.own_methods.ScaledImitatoin", {}, "of this name .did you mean ScaledImitation"),
        ("tests.distill.own_methods.NoDistiller", {}, "has no subclass of gan_kd.distill.base.Distiller"),
        ("tests.distill.own_methods.Nameless", {}, "its attribute `name`, '', is no plain name or is taken"),
        (OWN, {"wieght": 2}, "does not take what distill.custom gives it: .*'wieght'"),
    ],
)
def test_wrong_distillers_are_one_sentence(name, arguments, sentence):
    of = Recipe(
        "test", distill=Distill(custom={name: arguments}), stages={"a": Stage("distilled", 1, distillers=[name])}
    )
    with pytest.raises(UsageError, match=sentence) as caught:
        custom.load_all(of)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_whole_run_with_a_distiller_and_a_backbone_of_ones_own(tmp_path):
    done = test_run.train(
        tmp_path,
        **{
            "stages.adversarial.distillers": f"[{OWN}]",
            "distill.custom": f"{{{OWN}: {{weight: 0.5}}}}",
            "student.backbone": "mobilenetv2_0.25",
            "stages.adversarial.epochs": 1,
            "stages.baseline": "null",
            "stages.finetune": "null",
        },
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in test_run.records(tmp_path) if line["stage"] == "adversarial" and line["kind"] == "train"]
    assert {"conf", "loc", "scaled_imitation"} <= lines[-1]["losses"].keys()
    assert (test_run.run_folder(tmp_path) / "distilled" / "best.json").is_file()
    assert "memory: stage " in (test_run.run_folder(tmp_path) / "train.log").read_text()
