"""The student's head, inherited, untrained or its own: first weights, files, memory, a whole run, what is refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import yaml
from gluoncv.data import COCODetection

from gan_kd.detectors.base import Detector
from gan_kd.detectors.saved import describe, load_detector, save_detector
from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.network import split
from gan_kd.errors import UsageError
from gan_kd.export.run import export
from gan_kd.recipe import Data, Distill, Recipe, Stage, Student, Teacher
from gan_kd.training import estimate as memory
from gan_kd.training.distillers import comparing_outputs
from gan_kd.training.networks import (
    assemble,
    build_student,
    build_teacher,
    head_in_words,
    require_fitting_head,
    warn_of_inheritance,
)

ROOT = Path(__file__).resolve().parents[2]
CLASSES, SIZE = ("circle", "square"), 128
HEADS = ("inherit", "untrained")


def recipe(head: str, trains: str = "inherit", init: str = "random", taps: list[str] | None = None) -> Recipe:
    return Recipe(
        name="test",
        data=Data(size=SIZE, classes=list(CLASSES)),
        teacher=Teacher("mobilenet0.5", "random"),
        student=Student("mobilenet0.25", init, taps),
        distill=Distill(head=head),
        stages={"teacher": Stage("teacher", 1), "only": Stage(trains, 1)},
    )


def values(net: Detector) -> dict[str, np.ndarray]:
    return {name: parameter.data().asnumpy() for name, parameter in net.weights().items()}


@pytest.fixture(scope="module")
def students() -> dict[str, Detector]:
    """Of one seed, by distill.head, and the teacher."""
    teacher = build_teacher(recipe("inherit"), CLASSES)
    found = {head: build_student(recipe(head), CLASSES, "control", teacher).detector for head in HEADS}
    return {**found, "teacher": teacher}


def test_an_untrained_head_differs_from_an_inherited_one_in_its_weights_alone(students: dict[str, Detector]) -> None:
    lent, drawn, teacher = (values(students[name]) for name in ("inherit", "untrained", "teacher"))
    assert lent.keys() == drawn.keys() and any(name.startswith("adapters.") for name in lent)
    differing = {name for name in lent if not np.array_equal(lent[name], drawn[name])}
    predictors = {name for name in lent if "predictors." in name and name.endswith(".weight")}
    assert differing == predictors and len(predictors) == 12
    assert all(np.array_equal(lent[name], teacher[name]) for name in lent if "predictors." in name)
    own = {name: p.data().asnumpy() for name, p in zoo.build("mobilenet0.5", SIZE, CLASSES).collect_params().items()}
    new = [value for name, value in own.items() if "predictor" in name and name.endswith("weight")]
    for name, value in zip((name for name in drawn if name in predictors), new):
        assert value.shape == drawn[name].shape  # and of the same uniform draw:
        assert np.abs(drawn[name]).max() == pytest.approx(np.abs(value).max(), rel=0.05), name


def test_an_untrained_head_follows_the_seed(students: dict[str, Detector]) -> None:
    of = recipe("untrained")
    again = build_student(of, CLASSES, "distilled", students["teacher"]).detector
    assert all(np.array_equal(a, b) for a, b in zip(values(again).values(), values(students["untrained"]).values()))
    of = dataclasses.replace(of, train=dataclasses.replace(of.train, seed=1))
    other = build_student(of, CLASSES, "distilled", students["teacher"]).detector
    name = "class_predictors.0.predictor.weight"
    assert (values(other)[name] != values(again)[name]).any()


@pytest.mark.parametrize("head", HEADS)
def test_the_file_alone_gives_the_same_detections(head: str, students: dict[str, Detector], tmp_path: Path) -> None:
    of, path = recipe(head), tmp_path / "best.params"
    save_detector(students[head], path, describe(of, "control", students[head]))
    meta = json.loads((tmp_path / "best.json").read_text())
    assert (meta["head"], meta["head_backbone"]) == ({"inherit": "teacher"}.get(head, head), "mobilenet0.5")
    x = mx.nd.random.normal(shape=(1, 3, SIZE, SIZE))
    expected = students[head](x)[1].asnumpy()
    for beside in (True, False):
        if not beside:
            path.with_suffix(".json").unlink()
        for given in (None, of):
            np.testing.assert_array_equal(load_detector(path, given)[0](x)[1].asnumpy(), expected)
    mx.nd.save(str(path), mx.nd.load(str(path)))  # undescribed
    found, meta = load_detector(path, of)
    assert meta["head"] == {"inherit": "teacher"}.get(head, head) and meta["network"] == "distilled"
    np.testing.assert_array_equal(found(x)[1].asnumpy(), expected)


def test_an_unknown_head_in_a_description_is_refused(students: dict[str, Detector], tmp_path: Path) -> None:
    meta = describe(recipe("untrained"), "control", students["untrained"])
    save_detector(students["untrained"], tmp_path / "best.params", {**meta, "head": "both"})
    with pytest.raises(UsageError, match="does not describe a network .head is 'both'."):
        load_detector(tmp_path / "best.params")


def estimates(of: Recipe) -> list[Callable[[int], memory.Estimate]]:
    return memory.estimates(of, assemble(of, CLASSES))


def require_fitting(of: Recipe, classes: Sequence[str] = CLASSES) -> None:
    require_fitting_head(of, assemble(of, classes), comparing_outputs(of))


def test_an_untrained_head_takes_the_memory_of_an_inherited_one() -> None:
    lent, drawn = ([stage(16) for stage in estimates(recipe(head))] for head in HEADS)
    assert lent == drawn


def test_a_lent_head_counts_in_the_memory_instead_of_the_students_own() -> None:
    """In its weights, that is: at equal anchors the predictions of both are as large."""
    own, lent = (estimates(wide(head))[-1](16).device for head in ("own", "inherit"))
    student, teacher = (split(zoo.assemble(name, SIZE, list(CLASSES)))[1] for name in ("mobilenet0.25", "mobilenet1.0"))
    heavier = memory._weights(teacher) - memory._weights(student)
    assert heavier > 0 and lent["student"] - own["student"] == pytest.approx((3 + 1) * heavier)  # SGD with momentum
    assert lent["activations"] == own["activations"]


def wide(head: str) -> Recipe:
    """Without distillers, so that student and teacher differ by the head alone."""
    return dataclasses.replace(recipe(head), teacher=Teacher("mobilenet1.0", "random"))


@pytest.mark.parametrize(
    ("head", "trains", "words"),
    [
        ("inherit", "control", "head of the student, head inheritance: inherited, the teacher's weights and anchors"),
        ("untrained", "control", "head of the student, untrained head: untrained, the teacher's layers and anchors"),
        ("untrained", "distilled", "head of the student, distilled: untrained, the teacher's layers and anchors with"),
    ],
)
def test_the_log_says_which_head(head: str, trains: str, words: str, students: dict[str, Detector]) -> None:
    assert head_in_words(recipe(head), trains, students[head], students["teacher"]).startswith(words)


def test_only_a_backbone_from_random_weights_is_warned_of() -> None:
    sentence = warn_of_inheritance(recipe("inherit"))
    assert sentence and "for pretrained backbones" in sentence and sentence.endswith("take distill.head: own")
    for other in (
        recipe("untrained"),
        recipe("inherit", init="imagenet"),
        recipe("inherit", "baseline"),
        recipe("own", "distilled"),
    ):
        assert warn_of_inheritance(other) is None


@pytest.mark.parametrize("head", HEADS)
def test_other_maps_are_refused_before_any_training(head: str) -> None:
    require_fitting(recipe(head))
    three = ["relu10_fwd", "relu22_fwd", "relu26_fwd"]
    with pytest.raises(UsageError, match="own head .distill.head: own.: student .*; teacher "):
        require_fitting(recipe(head, taps=three), CLASSES)
    require_fitting(recipe("own", "distilled", taps=three))
    require_fitting(recipe(head, "baseline", taps=three), CLASSES)


@pytest.mark.parametrize("head", HEADS)
def test_other_anchors_are_refused_before_any_training(head: str) -> None:
    """As of the zoo's SSD on ResNet50, which has others for COCO's classes only."""
    of = dataclasses.replace(recipe(head), teacher=Teacher("resnet50_v1", "random"))
    require_fitting(of, CLASSES)
    with pytest.raises(UsageError, match=f"distill.head {head}: the head of the teacher .resnet50_v1. has other anch"):
        require_fitting(of, COCODetection.CLASSES)


def test_outputs_at_other_anchors_are_refused_before_any_training() -> None:
    """Also where the student keeps its own head: predictions are compared anchor by anchor."""
    of = recipe("own", "distilled")
    of.stages["only"] = Stage("distilled", 1, distillers=["outputs"])
    require_fitting(of, CLASSES)
    wide = dataclasses.replace(of, teacher=Teacher("resnet50_v1", "random"))
    require_fitting(wide, CLASSES)
    with pytest.raises(UsageError, match="the distiller outputs compares predictions anchor by anchor: the head of"):
        require_fitting(wide, COCODetection.CLASSES)
    three = dataclasses.replace(
        of, student=Student("mobilenet0.25", "random", ["relu10_fwd", "relu22_fwd", "relu26_fwd"])
    )
    with pytest.raises(UsageError, match="has other anchors .* take one that compares maps"):
        require_fitting(three, CLASSES)


def command(*arguments: str | Path) -> str:
    """What the command line prints, on both streams."""
    asked = [sys.executable, "-m", "gan_kd", *map(str, arguments)]
    done = subprocess.run(asked, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_a_run_of_head_inheritance_and_of_its_control(head: str, tmp_path: Path) -> None:
    """Trained, measured, reported, detected with and exported; gone on with from a recipe of the older words."""
    stages: dict[str, Any] = dict.fromkeys(("baseline", "baseline_finetune", "adversarial", "finetune"))
    stages["teacher"] = {"epochs": 1}
    stages["alone"] = {"trains": "inherit", "epochs": 1, "optimizer": {"name": "adam", "lr": 0.001}}
    values = {
        "inherits": "demo",
        "data": {"root": str(tmp_path / "data"), "size": 64, "demo": {"train": 12, "test": 4}},
        "distill": {"head": head},
        "stages": stages,
        "train": {"batch_size": 4, "num_workers": 0, "val_interval": 1},
    }
    source = tmp_path / "small.yaml"
    source.write_text(yaml.safe_dump(values))
    train = ("train", "--recipe", source, "--save-prefix", tmp_path / "runs")
    said = command(*train)
    name = {"inherit": "head inheritance"}.get(head, "untrained head")
    assert f"\n{name} mAP=" in said and f"stage alone trains the {name} network" in said
    assert said.count("for pretrained backbones") == (head == "inherit")

    run = tmp_path / "runs" / "small" / "233"
    page = (run / "report" / "report.md").read_text()
    assert f"| {name} | mobilenet0.25 |" in page and f"{name}: the student with 1x1 adapters" in page
    assert f"| {'inherited' if head == 'inherit' else head}, adapters |" in page
    params = run / "control" / "best.params"
    assert "mAP" in command("eval", "--params", params)
    command("detect", tmp_path / "data" / "JPEGImages", "--params", params, "--out", tmp_path / "detected")
    assert any((tmp_path / "detected").iterdir())
    record = export(params, tmp_path / "exported", ["mxnet"], rounds=1)
    words = "the head of mobilenet0.5" if head == "inherit" else "a head of mobilenet0.5's layers"
    assert words in (tmp_path / "exported" / "export.md").read_text() and record["source"]["adapters"]

    older = (run / "recipe.yaml").read_text().replace("head: inherit", "head: teacher")
    (run / "recipe.yaml").write_text(older)
    assert f"{name} mAP=" in command(*train, "--resume")
