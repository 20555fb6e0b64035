"""GFL and Localization Distillation through the whole program, on drawn data at 128 px."""

import json
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
import yaml

from gan_kd.data.check import preflight
from gan_kd.detectors.saved import describe, save_detector
from gan_kd.errors import UsageError
from gan_kd.evaluation.evaluate import evaluate_params
from gan_kd.export.run import export
from gan_kd.recipe import from_dict, to_yaml
from gan_kd.system.stop import Stopped, StopSignal
from gan_kd.training import step
from gan_kd.training.networks import build_teacher
from gan_kd.training.remembered import Remembered
from gan_kd.training.run import train
from tests.training.test_resume import StopAt


def recipe_of(folder, stages, contexts=("cpu:0",), **distill):
    return from_dict({
        "name": "gfl", "detector": "gfl",
        "gfl": {"width": 8, "convolutions": 1, "groups": 2, "reg_max": 8, "freeze": True},
        "data": {"dataset": "demo", "train": ["train"], "val": ["test"], "classes": "annotations", "size": 128,
                 "root": str(folder / "data"), "demo": {"train": 12, "test": 2}, "augment": "flip"},
        "teacher": {"backbone": "mobilenet0.5", "init": "random"},
        "student": {"backbone": "mobilenet0.25", "init": "random"},
        "distill": {"head": "own", **distill}, "stages": stages,
        "train": {"batch_size": 4, "num_workers": 0, "log_interval": 1, "contexts": list(contexts)},
    })  # fmt: skip


def run(recipe, folder, resume=False, stop=None):
    with stop or StopSignal() as signal:
        return train(recipe, folder, resume, signal)


def arrays(folder, network):
    return {name: x.asnumpy() for name, x in mx.nd.load(str(folder / "gfl/233" / network / "best.params")).items()}


TEACHER = {"trains": "teacher", "epochs": 1}
ALL = ["localization", "region_imitation", "bounded_regression"]


def test_a_student_is_distilled_resumed_and_evaluated(tmp_path):
    learn = {"trains": "distilled", "epochs": 2, "distillers": ALL}
    terms = {"localization": {"kd": {"vlr": 1}}, "region_imitation": {"region": "general"}}
    recipe = recipe_of(tmp_path, {"teach": TEACHER, "learn": learn}, **terms)
    run(recipe, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(recipe, tmp_path / "parts", stop=StopAt(7))
    run(recipe, tmp_path / "parts", resume=True)
    lines = [(tmp_path / part / "gfl/233/metrics.jsonl").read_text() for part in ("whole", "parts")]
    assert lines[0] == lines[1]
    last = json.loads([line for line in lines[0].splitlines() if '"train"' in line][-1])
    names = {"qfl", "giou", "dfl", "ld", "ld_vlr", "kd", "kd_vlr", "region_imitation", "bounded_regression"}
    assert names <= set(last.get("losses", last))
    told = json.loads([line for line in lines[0].splitlines() if '"diagnosis"' in line][-1])
    assert {f"gradient_{name}" for name in ("detection", *names - {"qfl", "giou", "dfl"})} <= set(told)
    for name in ("main_region", "main_edges", "vlr_region", "vlr_edges", "region_cells"):
        assert len(told[name]) == len(told["maps"]) == 5 and max(value or 0 for value in told[name]) > 0
    whole, parts = (arrays(tmp_path / part, "distilled") for part in ("whole", "parts"))
    assert all(np.array_equal(array, parts[name]) for name, array in whole.items())
    params = tmp_path / "whole/gfl/233/distilled/best.params"
    found = evaluate_params(recipe, params, [mx.cpu()])
    assert found["map"] == json.loads(params.with_name("eval.json").read_text())["map"]


@pytest.mark.parametrize("contexts", [("cpu:0",), ("cpu:0", "cpu:1")])
def test_a_teacher_that_remembers_changes_no_bit(tmp_path, monkeypatch, contexts):
    """Once it has predicted an image and its mirror, it is not asked again; resumed, it begins anew."""
    learn = {"trains": "distilled", "epochs": 3, "distillers": ["localization", "bounded_regression"]}
    anew = recipe_of(tmp_path, {"teach": TEACHER, "learn": learn}, contexts)
    recipe = replace(anew, teacher=replace(anew.teacher, remember=0.1))
    asked = []

    class Counting(Remembered):
        def __init__(self, predict, limit):
            super().__init__(lambda images: asked.append(len(images)) or predict(images), limit)

    monkeypatch.setattr(step, "Remembered", Counting)
    run(anew, tmp_path / "anew")
    assert not asked
    run(recipe, tmp_path / "whole")
    assert 12 <= sum(asked) <= 2 * 12
    with pytest.raises(Stopped):
        run(recipe, tmp_path / "parts", stop=StopAt(7))
    run(recipe, tmp_path / "parts", resume=True)
    lines, params = zip(*(
        ((tmp_path / part / "gfl/233/metrics.jsonl").read_text(), arrays(tmp_path / part, "distilled"))
        for part in ("anew", "whole", "parts")
    ))  # fmt: skip
    assert lines[0] == lines[1] == lines[2]
    for name, array in params[0].items():
        assert np.array_equal(array, params[1][name]) and np.array_equal(array, params[2][name])


def test_two_contexts_learn_as_one(tmp_path):
    """By `gfl.freeze`, with which BatchNorm takes no statistics of a device's own images."""
    stages = {"teach": TEACHER, "learn": {"trains": "distilled", "epochs": 1, "distillers": ALL}}
    found = []
    for contexts in (["cpu:0"], ["cpu:0", "cpu:1"]):
        folder = tmp_path / str(len(contexts))
        run(recipe_of(tmp_path, stages, contexts), folder)
        found.append(arrays(folder, "distilled"))
    for name, array in found[0].items():
        np.testing.assert_allclose(found[1][name], array, atol=1e-5 * max(1, np.abs(array).max()))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gfl": {"reg_max": 16}}, "trained with gfl.reg_max 8, but recipe gfl has 16; add --set gfl.reg_max=8"),
        ({"gfl": {"width": 16}}, "trained with gfl.width 8, but recipe gfl has 16"),
        ({"gfl": {"short": 128}}, "trained with gfl.short null, but recipe gfl has 128; add --set gfl.short=null"),
        ({"data": {"classes": ["circle"], "unknown_classes": "ignore"}}, "was trained on the classes"),
        ({"detector": "ssd"}, "params file of another network, a detector gfl; recipe gfl has ssd"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_any_training(tmp_path, untrained, change, sentence):
    values, path = untrained
    changed = {**values, "teacher": {**values["teacher"], "weights": str(path)}}
    changed["train"] = {**values["train"], "batch_size": 1}
    for key, value in change.items():
        changed[key] = {**values[key], **value} if isinstance(value, dict) else value
    distiller = "outputs" if "detector" in change else "localization"
    changed["stages"] = {
        "alone": {"trains": "baseline", "epochs": 1},
        "learn": {"trains": "distilled", "epochs": 1, "distillers": [distiller]},
    }
    with pytest.raises(UsageError, match=sentence) as caught:
        run(from_dict(changed), tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "gfl").exists()


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """The values of a recipe, and the file of its teacher, which was not trained."""
    folder = tmp_path_factory.mktemp("untrained")
    recipe = recipe_of(folder, {"teach": TEACHER})
    teacher = build_teacher(recipe, preflight(recipe.data)[0].classes)
    path = folder / "teacher.params"
    save_detector(teacher, path, describe(recipe, "teacher", teacher))
    return yaml.safe_load(to_yaml(recipe)), path


def test_int8_is_refused_with_the_reason(tmp_path, untrained):
    with pytest.raises(UsageError, match="cannot be written as int8 .as integers it is no faster.*; it is written as"):
        export(untrained[1], tmp_path, ["int8"])


def test_without_weight_localization_distillation_changes_no_bit(tmp_path):
    learn = {"epochs": 1, "optimizer": {"lr": 0.01}}
    stages = {
        "teach": TEACHER,
        "none": {**learn, "trains": "baseline"},
        "learn": {**learn, "trains": "distilled", "distillers": ["localization"]},
    }
    off = {"ld": {"main": 0, "vlr": 0}, "kd": {"main": 0}}
    run(recipe_of(tmp_path, stages, localization=off), tmp_path)
    baseline, distilled = (arrays(tmp_path, network) for network in ("baseline", "distilled"))
    assert baseline.keys() == distilled.keys()
    assert all(np.array_equal(array, distilled[name]) for name, array in baseline.items())
