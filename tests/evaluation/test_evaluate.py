"""Evaluation: each image's detections at its own scale, whatever the batches and devices; what is refused."""

from __future__ import annotations

import dataclasses
import json
import math

import cv2
import mxnet as mx
import numpy as np
import pytest

from gan_kd.data.dataset import DetectionDataset, open_split
from gan_kd.data.pixels import ValTransform
from gan_kd.data.sizes import Square
from gan_kd.detectors.saved import save_detector
from gan_kd.errors import RunError, UsageError
from gan_kd.evaluation.counting import count
from gan_kd.evaluation.evaluate import Evaluation, evaluate, evaluate_params, further, measure_speed
from gan_kd.recipe import Eval, from_dict
from gan_kd.training.panels import IMAGES, panels
from tests.rig import build_detector

SIZE = 128
CLASSES = ["cat", "dog"]
ANNOTATION = """<annotation><filename>{name}.jpg</filename>
<size><width>{width}</width><height>{height}</height><depth>3</depth></size>{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A VOC folder of five small images of different sizes, two objects in each."""
    root = tmp_path_factory.mktemp("voc")
    base = root / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (base / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(5):
        width, height = 90 + 40 * i, 250 - 30 * i
        image = cv2.resize(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), (width, height))
        cv2.imwrite(str(base / f"JPEGImages/image{i}.jpg"), image)
        objects = OBJECT.format(5, 6, 60, 70, name="cat", difficult=0)
        objects += OBJECT.format(20, 30, width, height, name="dog", difficult=int(i == 1))
        text = ANNOTATION.format(name=f"image{i}", width=width, height=height, objects=objects)
        (base / f"Annotations/image{i}.xml").write_text(text)
    for split in ("train", "val"):
        (base / f"ImageSets/Main/{split}.txt").write_text("".join(f"image{i}\n" for i in range(5)))
    return root


@pytest.fixture(scope="module")
def recipe(root):
    return from_dict(
        {
            "name": "small",
            "data": {"root": str(root), "train": ["2012/train"], "val": ["2012/val"], "classes": CLASSES,
                     "size": SIZE},
            "teacher": {"backbone": "mobilenet0.5", "init": "random"},
            "student": {"backbone": "mobilenet0.25", "init": "random"},
            "stages": {"plain": {"trains": "baseline", "epochs": 1}},
            "train": {"num_workers": 0},
            "eval": {"batch_size": 2, "post_nms": 20},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def dataset(recipe):
    return open_split(recipe.data, "val")


def new_detector(post_nms=20, classes=CLASSES):
    mx.random.seed(0)
    return build_detector("mobilenet0.25", SIZE, classes, measured=Eval(post_nms=post_nms))


@pytest.fixture(scope="module")
def detector():
    return new_detector()


CPU = mx.cpu()


def run(detector, dataset, contexts=(CPU,), workers=0, **config):
    detector.collect_params().reset_ctx(list(contexts))
    try:
        return evaluate(detector, dataset, contexts, Eval(**config), workers, progress=False)
    finally:
        detector.collect_params().reset_ctx([CPU])


def test_detections_are_the_networks_at_each_images_scale(detector, dataset):
    found = run(detector, dataset, batch_size=2).detections
    assert len(found) == 5
    for record, rows in zip(dataset.records, found):
        image = cv2.cvtColor(cv2.imread(str(record.image)), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        pixels = ValTransform(Square(SIZE))(image)[0]
        ids, scores, boxes = (part.asnumpy()[0] for part in detector(mx.nd.array(pixels[None])))
        used = ids[:, 0] >= 0
        assert used.sum() == len(rows) > 5
        expected = boxes[used] / SIZE * [width, height, width, height]
        expected = np.clip(expected, 0, [width - 1, height - 1, width - 1, height - 1])
        np.testing.assert_allclose(rows[:, :4], expected, atol=1e-2)
        np.testing.assert_allclose(rows[:, 4:], np.hstack((ids, scores))[used], atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 1},
        {"batch_size": 5},
        {"batch_size": 4, "contexts": (mx.cpu(0), mx.cpu(1))},  # the last batch has one image for two devices
        {"batch_size": 2, "workers": 1},
    ],
    ids=str,
)
def test_batches_devices_and_workers_change_nothing(detector, dataset, options):
    expected = run(detector, dataset, batch_size=2)
    result = run(detector, dataset, **options)
    for rows, wanted in zip(result.detections, expected.detections):
        np.testing.assert_allclose(rows, wanted, atol=1e-3)
    assert result.map == pytest.approx(expected.map, abs=1e-6)
    assert result.images == 5


def truth(dataset):
    """Detections that are the ground truth."""
    return [
        np.column_stack((record.boxes, record.labels, np.full(len(record.labels), 0.9))) for record in dataset.records
    ]


def test_panels_show_detections_and_attention_and_leave_the_network_alone(detector, dataset):
    """Left the ground truth, right what was detected."""
    before = {name: parameter.data().asnumpy() for name, parameter in detector.weights().items()}
    found, nothing = truth(dataset), [np.zeros((0, 6))] * 5
    one, same, none = (panels("baseline", detector, dataset, rows, CPU) for rows in (found, found, nothing))
    assert one == same and set(one) == {"detections", "attention"}
    assert one["attention"] == none["attention"] and one["detections"] != none["detections"]
    picture, other = (cv2.imdecode(np.frombuffer(p["detections"].jpeg, np.uint8), 1).astype(int) for p in (one, none))
    assert picture.shape[:2] == (one["detections"].height, one["detections"].width)
    changed = np.flatnonzero((np.abs(picture - other) > 60).any(axis=(0, 2)))
    assert changed.min() > picture.shape[1] // 2 > 250 and len(dataset) > IMAGES
    for name, parameter in detector.weights().items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), before[name], err_msg=name)


@pytest.mark.parametrize("metric", ["voc07", "voc10"])
def test_the_ground_truth_scores_100(dataset, metric):
    result = count(dataset, truth(dataset), Eval(metric=metric))
    assert result.ap == pytest.approx({"cat": 100, "dog": 100})
    missed = truth(dataset)
    missed[0] = missed[0][:0]
    # One of five cats, one of the four dogs that are not difficult.
    expected = {"cat": 80, "dog": 75} if metric == "voc10" else {"cat": 100 * 9 / 11, "dog": 100 * 8 / 11}
    assert count(dataset, missed, Eval(metric=metric)).ap == pytest.approx(expected)


def test_nan_is_none_in_further_measures(dataset):
    nothing = DetectionDataset(["cow"], dataset.records[:0])
    assert set(further(nothing, Evaluation(math.nan, {}, {}, []), Eval()).values()) == {None}


def test_the_threshold_is_the_recipes(dataset):
    moved = truth(dataset)
    for rows in moved:
        rows[:, 2] -= 0.3 * (rows[:, 2] - rows[:, 0])
    assert count(dataset, moved, Eval(iou=0.5)).map == pytest.approx(100)
    assert count(dataset, moved, Eval(iou=0.75)).map == 0


def test_coco_counts_what_the_reader_kept(shared):
    data = from_dict(
        {
            "name": "coco128",
            "data": {"dataset": "coco", "root": str(shared / "data/coco128"), "train": ["train2017"],
                     "val": ["val2017"], "classes": "coco", "size": SIZE},
            "eval": {"metric": "coco"},
            "stages": {"plain": {"trains": "baseline", "epochs": 1}},
        }
    ).data  # fmt: skip
    dataset = open_split(data, "val")
    result = count(dataset, truth(dataset), Eval(metric="coco"))
    assert len(dataset) == 128
    assert result.map == pytest.approx(100)
    assert further(dataset, Evaluation(result.map, {}, {}, []), Eval(metric="coco")) == {"ap": result.map}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(dataset, value):
    broken = new_detector()
    parameter = broken.head.class_predictors[0].predictor.bias
    parameter.set_data(mx.nd.array(np.full(parameter.shape, value)))
    with pytest.raises(RunError, match="class_predictors.0.predictor.bias.*diverged"):
        run(broken, dataset)


def test_boxes_that_are_not_finite_are_refused(dataset):
    broken = new_detector()
    parameter = broken.head.box_predictors[0].predictor.bias
    parameter.set_data(mx.nd.full(parameter.shape, 1e5))  # finite itself; exp of it is not
    with pytest.raises(RunError, match="image image0 hold nan or infinite"):
        run(broken, dataset)


def test_speed_is_in_images_a_second(detector):
    # Twice the pixels in each direction take longer; the absolute number is the machine's.
    assert measure_speed(detector, 4, passes=3) > 0
    large = build_detector("mobilenet0.25", 4 * SIZE, CLASSES)
    assert measure_speed(large, 4, passes=3) < measure_speed(detector, 4, passes=3)


META = {
    "network": "baseline",
    "backbone": "mobilenet0.25",
    "size": SIZE,
    "classes": CLASSES,
    "head": "own",
    "head_backbone": "mobilenet0.25",
    "adapters": False,
    "seed": 7,
}


def test_eval_json(detector, recipe, dataset, tmp_path):
    path = tmp_path / "best.params"
    save_detector(detector, path, META)
    result = evaluate_params(recipe, path, [mx.cpu()], progress=False)
    expected = run(detector, dataset, batch_size=2)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["map"] == pytest.approx(expected.map)
    assert result["ap"] == pytest.approx(expected.ap)
    assert result["also"] == further(dataset, expected, Eval(metric="voc10"))
    assert result["also"]["voc07"] == result["map"] and set(result["also"]) == {"voc07", "voc10", "ap", "ap75"}
    assert (result["network"], result["images"], result["seed"]) == ("baseline", 5, 7)
    assert result["images_per_s"] > 0
    assert result["parameters"] == sum(
        math.prod(parameter.shape) for parameter in detector.collect_params().values() if parameter.grad_req != "null"
    )
    assert len(result["samples"]) == 5
    sample, record = result["samples"][1], dataset.records[1]
    assert (sample["id"], sample["width"], sample["height"]) == ("image1", 130, 220)
    assert sample["gt"] == [[4, 5, 59, 69, 0, 0], [19, 29, 129, 219, 1, 1]]
    np.testing.assert_allclose(sample["detections"], expected.detections[1], atol=1e-3)
    assert cv2.imread(sample["image"]).shape[:2] == (record.height, record.width)


def test_eval_json_has_attention_of_some_images(recipe, dataset, tmp_path):
    """A student with adapters: its maps are those behind them. One in three of the samples, from the image alone."""
    mx.random.seed(1)
    student = build_detector("mobilenet0.25", SIZE, CLASSES, "mobilenet0.5", recipe.eval)
    path = tmp_path / "best.params"
    student_meta = {"network": "distilled", "head": "teacher", "head_backbone": "mobilenet0.5", "adapters": True}
    save_detector(student, path, {**META, **student_meta})
    samples = evaluate_params(recipe, path, [mx.cpu()], progress=False)["samples"]
    assert [index for index, sample in enumerate(samples) if "attention" in sample] == [0, 3]
    pixels = ValTransform(Square(SIZE))(dataset.image(3))[0]
    maps = student.adapters(*student.extractor(mx.nd.array(pixels[None])))
    assert len(samples[3]["attention"]) == 2
    for m, rows in zip(maps, samples[3]["attention"]):
        energy = (m.asnumpy()[0] ** 2).sum(axis=0)
        expected = 255 * energy / energy.max()
        np.testing.assert_allclose([list(bytes.fromhex(row)) for row in rows], expected, atol=0.51)


def test_a_class_without_ground_truth_is_none(recipe, tmp_path):
    three = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, classes=[*CLASSES, "cow"]))
    path = tmp_path / "best.params"
    save_detector(new_detector(classes=[*CLASSES, "cow"]), path, {**META, "classes": [*CLASSES, "cow"]})
    result = evaluate_params(three, path, [mx.cpu()], progress=False)
    assert result["ap"]["cow"] is None
    assert result["map"] is not None


def test_other_classes_are_refused(detector, recipe, tmp_path):
    path = tmp_path / "best.params"
    save_detector(detector, path, {**META, "classes": ["cat", "cow"]})
    with pytest.raises(UsageError, match="trained on the classes cat, cow, but the data has cat, dog"):
        evaluate_params(recipe, path, [mx.cpu()], progress=False)
