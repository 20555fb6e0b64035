"""The package from Python: the lines of docs/products.md on drawn images, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_kd.api import TrainedDetector, distill, evaluate, export, load, split
from gan_kd.data import demo
from gan_kd.data.dataset import open_split
from gan_kd.data.images import as_rgb, read
from gan_kd.detectors.saved import save_detector
from gan_kd.errors import UsageError
from gan_kd.recipe import load as load_recipe
from tests.rig import build_detector

ROOT = Path(__file__).resolve().parents[1]
SIZE = 128


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's file, its weights at random."""
    path = tmp_path_factory.mktemp("teacher") / "best.params"
    about = {"network": "teacher", "backbone": "mobilenet0.5", "size": SIZE, "classes": list(demo.CLASSES),
             "head": "own", "head_backbone": "mobilenet0.5", "adapters": False}  # fmt: skip
    save_detector(build_detector("mobilenet0.5", SIZE, demo.CLASSES), path, about)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes the demo a matter of seconds."""
    keys = ["data.demo.train=8", "data.demo.test=6", "train.batch_size=4", "train.num_workers=0",
            "distill.head=inherit", "stages.adversarial.epochs=1"]  # fmt: skip
    absent = [f"stages.{name}=null" for name in ("baseline", "baseline_finetune", "finetune")]
    return [f"data.root={tmp_path_factory.mktemp('data') / 'demo'}", *keys, *absent]


@pytest.fixture(scope="module")
def student(params: Path, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> TrainedDetector:
    return distill("demo", load(params), small, save_prefix=tmp_path_factory.mktemp("runs"))


def test_the_import_loads_no_mxnet():
    code = "import sys, gan_kd.api; print('mxnet' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.slow
def test_a_distilled_student_finds_what_its_evaluation_finds(student):
    """On its own run's recipe, file by file and as arrays."""
    assert (student.about["network"], student.classes, student.size) == ("distilled", demo.CLASSES, SIZE)
    result = evaluate(student)
    assert 0 <= result.map <= 100 and set(result.ap) == set(demo.CLASSES)
    recipe = load_recipe(student.params.parents[1] / "recipe.yaml")
    files = [record.image for record in open_split(recipe.data, "val").records]
    found = student(*files[:3], *map(read, files[3:]))
    assert len(found) == len(result.detections) == 6 and len(found[0])
    for ours, theirs in zip(found, result.detections):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_a_students_environment_names_the_script_that_made_it(student):
    command = (student.params.parents[1] / "environment.json").read_text()
    assert "-m gan_kd" not in command and Path(sys.argv[0]).name in command


@pytest.mark.slow
def test_a_student_is_exported(student, tmp_path):
    record = export(student, tmp_path)
    assert record["source"]["network"] == "distilled" and "scores differ by" in record["checks"][0]
    assert {path.name.partition("0.25")[2] for path in tmp_path.iterdir()} >= {"-symbol.json", "-0000.params", ".onnx"}


@pytest.mark.slow
def test_evaluation_takes_a_recipe_itself_and_overrides(student):
    recipe = load_recipe(student.params.parents[1] / "recipe.yaml")
    assert evaluate(student, recipe).map == evaluate(student).map
    assert len(evaluate(student, recipe, ["eval.post_nms=1"]).detections[0]) <= 1


@pytest.mark.slow
def test_a_student_with_adapters_is_not_split(student):
    assert student.network.adapters is not None
    with pytest.raises(UsageError, match="best.params: adapters lie between"):
        split(student)


def test_head_and_extractor_give_the_detections(params):
    import mxnet as mx

    teacher = load(params)
    extractor, head = split(teacher)
    image = mx.nd.random.normal(shape=(1, 3, SIZE, SIZE))
    for ours, theirs in zip(teacher.network.decoder(*head(*extractor(image))), teacher.network(image)):
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())


def test_a_gluoncv_network_is_split():
    from gan_kd.detectors.ssd import zoo

    net = zoo.build("mobilenet0.25", SIZE, ["cat"])
    extractor, head = split(net)
    assert (extractor.features, head.classes) == (net.features, ("cat",))


def test_a_file_without_a_description_needs_a_recipe(params, small, tmp_path):
    import mxnet as mx

    alone = tmp_path / "alone.params"
    mx.nd.save(str(alone), mx.nd.load(str(params)))
    with pytest.raises(UsageError, match="nothing says which network it holds"):
        load(alone)
    teacher = load(alone, load_recipe("demo", small))
    assert teacher.about["network"] == "teacher"
    with pytest.raises(UsageError, match="alone.params lies in no run folder"):
        evaluate(teacher)
    assert teacher() == []


def test_what_a_distillation_refuses(params, small):
    with pytest.raises(UsageError, match="recipe voc/mobilenet1.0 trains no distilled student"):
        distill("voc/mobilenet1.0")
    with pytest.raises(UsageError, match="there is no recipe demoo"):
        distill("demoo")
    with pytest.raises(UsageError, match="train.batch_size 99 is more than the 8 training images"):
        distill("demo", params, [*small, "train.batch_size=99"])


def test_a_recipe_is_overridden():
    demo_recipe = load_recipe("demo")
    assert load_recipe(demo_recipe) == demo_recipe
    assert load_recipe(demo_recipe, ["train.seed=7"]).train.seed == 7


def _rgb(kind):
    """The same picture in forms that are read."""
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    gray = picture[..., 0]
    return {
        "gray": (gray, np.stack([gray] * 3, 2)),
        "one channel": (gray[..., None], np.stack([gray] * 3, 2)),
        "alpha": (np.dstack((picture, gray)), picture),
        "a view": (picture[:, ::-1], picture[:, ::-1]),
        "Pillow": (Image.fromarray(picture), picture),
        "Pillow, gray": (Image.fromarray(gray), np.stack([gray] * 3, 2)),
        "Pillow, alpha": (Image.fromarray(np.dstack((picture, gray))), picture),
    }[kind]


@pytest.mark.parametrize("kind", ["gray", "one channel", "alpha", "a view", "Pillow", "Pillow, gray", "Pillow, alpha"])
def test_arrays_that_are_read(params, kind):
    image, expected = _rgb(kind)
    np.testing.assert_array_equal(as_rgb(image), expected)
    detector = load(params)
    np.testing.assert_array_equal(detector(image)[0], detector(np.ascontiguousarray(expected))[0])


def test_a_pillow_image_is_turned_as_its_file_is(tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(np.arange(2400, dtype=np.uint8).reshape(40, 60)).save(tmp_path / "a.png", exif=tag)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(as_rgb(image), read(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((40, 60, 3), np.float32), r"image 2 is an array of float32, .*\(255 \* image\).round"),
        (np.zeros((40, 60), np.uint16), "image 2 is an array of uint16, .*image >> 8"),
        (np.zeros((40, 60, 3), bool), "array of bool, .*give uint8"),
        (Image.fromarray(np.zeros((40, 60), np.uint16)), "array of uint16"),
        (np.zeros((0, 60, 3), np.uint8), r"shape \(0, 60, 3\): give \(H, W, 3\) RGB"),
        (np.zeros((3, 40, 60), np.uint8), r"shape \(3, 40, 60\)"),
        (np.zeros((1, 40, 60, 3), np.uint8), r"shape \(1, 40, 60, 3\)"),
        (None, "image 2 is of the type NoneType: give a file, a NumPy array or a Pillow image"),
        ([[1, 2]], "of the type list"),
    ],
)
def test_arrays_that_are_refused(params, image, message):
    with pytest.raises(UsageError, match=message):
        load(params)(np.zeros((40, 60, 3), np.uint8), image)
