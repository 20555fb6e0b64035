"""YOLOv3 as the engine sees it: recipes, training, exact resume, heads of teachers, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import mxnet as mx
import numpy as np
import pytest

from gan_kd.data.batch import TrainBatch
from gan_kd.detectors.families import family
from gan_kd.detectors.saved import describe, load_detector, save_detector
from gan_kd.detectors.yolo3.targets import YOLO3Targets
from gan_kd.errors import UsageError
from gan_kd.evaluation.evaluate import evaluate_params
from gan_kd.gluon.optim import Position
from gan_kd.recipe import from_dict, load
from gan_kd.system.stop import Stopped, StopSignal
from gan_kd.training.distillers import compared_places
from gan_kd.training.networks import assemble, build_student, build_teacher, require_fitting_head
from gan_kd.training.run import train
from gan_kd.training.stage import Stage
from tests.rig import marks
from tests.training.test_resume import StopAt

SIZE = 64
CLASSES = ["circle", "square", "star"]
ADAM = {"name": "adam", "lr": 0.001, "beta1": 0.9, "wd": 0}
METHODS = ["information_map", "fine_grained", "outputs"]
TEACH = {"trains": "teacher", "epochs": 1, "optimizer": ADAM}
LEARN = {"trains": "distilled", "epochs": 2, "optimizer": ADAM, "distillers": METHODS}


def recipe(root="nowhere", stages=None, **keys):
    data = {"dataset": "demo", "train": ["train"], "val": ["test"], "classes": "annotations", "size": SIZE,
            "root": str(root), "demo": {"train": 12, "test": 2}}  # fmt: skip
    return from_dict({
        "name": "small", "detector": "yolo3", "data": {**data, **keys.pop("data", {})},
        "yolo3": {"teacher_filters": [32, 16, 16], "student_filters": [16, 8, 8], **keys.pop("yolo3", {})},
        "distill": {
            "head": "own", "places": ["backbone", "neck"], "fine_grained": {"quiet": 0},
            "information_map": {"weighting": "objectness"}, **keys.pop("distill", {}),
        },
        "teacher": {"backbone": "mobilenet0.5", "init": "random", **keys.pop("teacher", {})},
        "student": {"backbone": "mobilenet0.25", "init": "random", **keys.pop("student", {})},
        "stages": stages or {"teach": TEACH, "learn": LEARN},
        "train": {"batch_size": 4, "num_workers": 0, "log_interval": 1, "val_interval": 2}, **keys,
    })  # fmt: skip


def parts(role="student", **keys):
    mx.random.seed(0)
    made = recipe(**keys)
    return family("yolo3").build(made, getattr(made, role), CLASSES)


def batch(size=SIZE, images=4, seed=0):
    rng = np.random.default_rng(seed)
    truth, rows = np.full((images, 2, 5), -1, np.float32), np.full((images, 2, 8), -1, np.float32)
    for image in range(images):
        corner, side = rng.uniform(0, size / 2, 2), rng.uniform(8, size / 2, 2)
        truth[image, 0] = [*corner, *(corner + side), image % 3]
        rows[image, :1] = YOLO3Targets(size)(truth[image, :1, :4], truth[image, :1, 4])
    return TrainBatch(rng.standard_normal((images, 3, size, size)).astype(np.float32), truth, (rows,))


def test_a_run_is_trained_resumed_and_evaluated(tmp_path):
    """Places of both kinds, squares of two sides, mixtures in the first epoch."""
    own = recipe(tmp_path / "data", yolo3={"sides": [64, 96], "mixup_epochs": 1, "label_smoothing": True})
    with StopSignal() as stop:
        page = train(own, tmp_path / "whole", False, stop)
    with StopAt(7) as stop, pytest.raises(Stopped):
        train(own, tmp_path / "parts", False, stop)
    with StopSignal() as stop:
        train(own, tmp_path / "parts", True, stop)
    runs = [tmp_path / part / "small" / "233" for part in ("whole", "parts")]
    lines = [(run / "metrics.jsonl").read_text() for run in runs]
    assert lines[0] == lines[1]
    assert all(f'"{name}"' in lines[0] for name in ("obj", "center", "scale", "cls", *METHODS, "outputs_boxes"))
    diagnosis = next(found for found in map(json.loads, lines[0].splitlines()) if found["kind"] == "diagnosis")
    assert len(diagnosis["maps"]) == len(diagnosis["attention_cosine"]) == 6
    assert diagnosis["places"] == ["backbone"] * 3 + ["neck"] * 3
    weights = [mx.nd.load(str(run / "distilled" / "best.params")) for run in runs]
    assert all(np.array_equal(array.asnumpy(), weights[1][name].asnumpy()) for name, array in weights[0].items())
    found = evaluate_params(own, runs[0] / "distilled" / "best.params", [mx.cpu()])
    assert found["images"] == 2 and found["teacher"]["backbone"] == "mobilenet0.5"
    detector, about = load_detector(runs[0] / "distilled" / "best.params", own)
    assert about["filters"] == [16, 8, 8] and not any(name.startswith(("bridge", "adapters")) for name in weights[0])
    assert detector(mx.nd.zeros((1, 3, SIZE, SIZE)))[2].shape == (1, 100, 4)
    assert "YOLOv3 mobilenet0.25 ← YOLOv3 mobilenet0.5" in page.read_text()


def test_two_devices_take_the_step_of_one():
    """Every distiller at every place, BatchNorm over both devices."""
    sgd = {"name": "sgd", "lr": 1e-3, "wd": 0}
    own = recipe(stages={"learn": {**LEARN, "optimizer": sgd}}, teacher={"weights": "unused.params"})
    own = dataclasses.replace(own, teacher=dataclasses.replace(own.teacher, weights=None))
    own = dataclasses.replace(own, train=dataclasses.replace(own.train, sync_bn=True))
    found = []
    for contexts in ([mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]):
        teacher = build_teacher(own, CLASSES)
        teacher.extractor.freeze()
        networks = build_student(own, CLASSES, "distilled", teacher, compared_places(own, "distilled"))
        networks.move(contexts)
        learnt = {name: each for name, each in networks.parameters().items() if each.grad_req != "null"}
        before = {name: parameter.data(contexts[0]).asnumpy() for name, parameter in learnt.items()}
        stage, whole = Stage(own, "learn", networks, contexts), batch()
        whole = whole._replace(regions=tuple(marks(each, list(whole.truth), SIZE) for each in stage.regions))
        losses = stage.step(whole, Position(0, 3, 2))
        moved = {name: learnt[name].data(contexts[0]).asnumpy() - old for name, old in before.items()}
        found.append(({name: sum(part.asscalar() for part in parts) for name, parts in losses.items()}, moved))
    (losses, moved), (others, alike) = found
    assert {*METHODS, "outputs_boxes", "obj"} <= losses.keys() and all(
        np.abs(step).max() > 0 for step in moved.values()
    )
    for name, value in losses.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-4, err_msg=name)
    whole, apart = (
        np.sqrt(sum(np.square(step - other).sum() for step, other in zip(moved.values(), others)))
        for others in ([0.0] * len(moved), alike.values())
    )
    assert apart < 1e-3 * whole


def test_an_image_without_an_object_has_the_loss_of_objectness_alone():
    made, loss, empty = parts(), family("yolo3").detection_loss(recipe()), batch()
    empty.truth[:], empty.targets[0][:] = -1, -1
    maps = [made.extractor(mx.nd.array(empty.images))[3:]]
    losses = loss.shares(made.head, maps, loss.prepare(empty, [mx.cpu()])).losses
    values = {name: part[0].asscalar() for name, part in losses.items()}
    assert values["obj"] > 0 and values["center"] == values["scale"] == values["cls"] == 0


def test_a_lent_head_is_the_teachers_with_parameters_of_its_own():
    teacher = parts("teacher")
    x = mx.nd.random.normal(shape=(1, 3, SIZE, SIZE))
    maps = teacher.extractor(x)[3:]
    lent = family("yolo3").lend(teacher.head, True)
    for ours, theirs in zip(lent(*maps), teacher.head(*maps)):
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())
    lent.yolo_outputs[0].prediction.weight.data()[:] = 0
    assert teacher.head.yolo_outputs[0].prediction.weight.data().norm().asscalar() > 0
    drawn = family("yolo3").lend(teacher.head, False)
    assert drawn.weights().keys() == teacher.head.weights().keys()
    assert not np.array_equal(drawn(*maps)[4].asnumpy(), teacher.head(*maps)[4].asnumpy())


@pytest.mark.parametrize("stated", [True, False])
def test_a_head_to_load_into_is_built_without_its_teacher(stated):
    own = recipe()
    teacher, of = parts("teacher"), family("yolo3")
    about = {"backbone": "mobilenet0.5", "size": SIZE, "classes": CLASSES, **of.about(own, own.teacher)}
    taken = [teacher.extractor.levels[index] for index in teacher.extractor.to_head]
    head, levels = of.head_for(taken if stated else None, about)
    assert levels == taken
    shapes = {name: parameter.shape for name, parameter in teacher.head.weights().items()}
    assert {name: parameter.shape for name, parameter in head.weights().items()} == shapes


def test_a_necks_values_are_lent_where_all_channels_agree():
    student, own = parts(), recipe()
    teacher = family("yolo3").build(own, own.student, CLASSES)  # the next draw
    backbone = student.extractor.stages[0][0].weight.data().copy()
    family("yolo3").lend_neck(teacher, student)
    given = teacher.extractor._collect_params_with_prefix()
    for name, parameter in student.extractor._collect_params_with_prefix().items():
        if not name.startswith("stages."):
            assert parameter is not given[name]
            np.testing.assert_array_equal(parameter.data().asnumpy(), given[name].data().asnumpy())
    np.testing.assert_array_equal(student.extractor.stages[0][0].weight.data().asnumpy(), backbone.asnumpy())


def test_a_neck_of_other_channels_is_refused_before_any_training():
    own = recipe(distill={"neck": "inherit"})
    with pytest.raises(
        UsageError, match="distill.neck inherit needs maps of equal channels, but the student's have 64"
    ):
        require_fitting_head(own, assemble(own, CLASSES))
    own = recipe(
        distill={"neck": "inherit"}, yolo3={"teacher_filters": [16, 8, 8]}, teacher={"backbone": "mobilenet0.25"}
    )
    require_fitting_head(own, assemble(own, CLASSES))


def test_a_teacher_of_other_anchors_or_classes_is_refused(tmp_path):
    made = parts("teacher")
    detector = family("yolo3").join(made, None, recipe().eval)
    file = tmp_path / "teacher.params"
    detector.save(file)
    arrays = mx.nd.load(str(file))
    arrays["yolo_outputs.1.anchors"] *= 2
    mx.nd.save(str(file), arrays)
    learn = {"learn": LEARN}
    with pytest.raises(UsageError, match="'yolo_outputs.1.anchors' differs: the file is for .* other anchors"):
        build_teacher(recipe(teacher={"weights": str(file)}, stages=learn, data={"classes": CLASSES}), CLASSES)
    own = recipe(data={"classes": CLASSES})
    save_detector(detector, file, describe(own, "teacher", detector))
    others = recipe(teacher={"weights": str(file)}, stages=learn, data={"classes": ["cat", "dog"]})
    with pytest.raises(UsageError, match="was trained on the classes circle, square, star, but the data has cat, dog"):
        build_teacher(others, ["cat", "dog"])


def test_cost_counts_what_a_head_gives():
    made = parts()
    cost = family("yolo3").cost(made)
    found = made.head(*made.extractor(mx.nd.zeros((1, 3, SIZE, SIZE)))[3:])
    assert cost.outputs == sum(y.size for y in found) and cost.scores == found[4].size


REFUSED = {
    "no multiple of 32": ({"data": {"size": 100}}, r"data.size: YOLOv3 takes squares of 64 to 1024 px .* not 100"),
    "a side": ({"yolo3": {"sides": [64, 65]}}, r"yolo3.sides: YOLOv3 takes squares .* not 65"),
    "sides too small for a critic": (
        {"yolo3": {"sides": [96, 128]}, "stages": {"teach": TEACH, "learn": {**LEARN, "distillers": ["gan"]}}},
        r"yolo3.sides: 96 px leave a critic of images fewer than 4x4 cells; begin at 128",
    ),
    "filters": ({"yolo3": {"student_filters": [64, 33, 16]}}, r"yolo3.student_filters are three even numbers"),
    "too few filters": ({"yolo3": {"teacher_filters": [64]}}, r"yolo3.teacher_filters are three even numbers"),
    "taps": ({"student": {"taps": ["relu22_fwd"]}}, r"student.taps are for SSD"),
    "a backbone": ({"student": {"backbone": "resnet18_v1"}}, r"student.backbone cannot be resnet18_v1"),
    "a place": ({"distill": {"places": ["fusion"]}}, r"distill.places.*fusion"),
    "the zoo": ({"teacher": {"weights": "zoo"}}, r"teacher.weights zoo: GluonCV has YOLOv3 on darknet53 and"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_one_sentence(case):
    keys, message = REFUSED[case]
    with pytest.raises(UsageError, match=message):
        recipe(**keys)


def test_another_filters_of_the_zoos_teacher_are_refused():
    teacher, filters = {"backbone": "darknet53", "weights": "zoo"}, {"teacher_filters": [64, 32, 16]}
    with pytest.raises(UsageError, match=r"yolo3.teacher_filters are not those of GluonCV's trained network"):
        recipe(teacher=teacher, yolo3=filters, data={"classes": "voc"}, stages={"learn": LEARN})


def test_objectness_is_no_weighting_of_other_families():
    with pytest.raises(
        UsageError, match="distill.information_map.weighting objectness needs yolo3, but detector is ssd"
    ):
        load(
            "demo", ["distill.information_map.weighting=objectness", "stages.adversarial.distillers=[information_map]"]
        )


def test_other_families_lend_no_neck():
    with pytest.raises(UsageError, match="distill.neck inherit is for yolo3; the detector ssd keeps its own: set own"):
        load("demo", ["distill.neck=inherit"])
