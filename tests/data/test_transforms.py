"""The transforms against GluonCV's: by pixels where the draw is given, by distribution where it is random."""

from __future__ import annotations

import random

import cv2
import mxnet as mx
import numpy as np
import pytest
from gluoncv.data.transforms import experimental
from gluoncv.data.transforms import image as gluoncv_image
from gluoncv.data.transforms.presets.ssd import SSDDefaultTrainTransform, SSDDefaultValTransform
from scipy.stats import ks_2samp

from gan_kd.data import transforms
from gan_kd.data.transforms import MEAN, NORMALISE, STD, TrainTransform, ValTransform

SIZE = 48
ANCHORS = np.array([[x, y, side, side] for side in (12, 32) for x in range(4, SIZE, 8) for y in range(4, SIZE, 8)])
LABEL = np.array([[4, 3, 30, 28, 1, 0], [25, 10, 70, 49, 2, 1]], np.float32)
LARGE = np.array([[0, 0, 79, 59, 1, 0]], np.float32)  # all of an 80 x 60 image: few windows overlap it by 0.9


def photo(height: int, width: int) -> np.ndarray:
    """Smooth random colours, as photos have them: (height, width, 3) uint8."""
    coarse = np.random.default_rng(1).integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def seed_globals(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)


def assert_same_distributions(ours: list, theirs: list) -> None:
    """(N, columns) against (M, columns): equal ones would be told apart in one of 1000 columns."""
    columns = zip(np.transpose(ours), np.transpose(theirs))
    for number, (mine, other) in enumerate(columns):
        result = ks_2samp(mine.round(4), other.round(4))  # so that what is drawn often ties despite rounding
        assert result.pvalue > 1e-3, f"column {number}: {result}"


@pytest.mark.parametrize("interpolation", range(5))
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(
    "window",
    [(10, 5, 60, 40), (-15, -20, 70, 61), (-40, -30, 190, 150), (90, 60, 30, 30), (-50, 0, 40, 40)],
    ids=["inside", "past the corner", "around", "past the far corner", "beside"],
)
def test_render_is_gluoncvs_steps(interpolation: int, mirror: bool, window: tuple[int, int, int, int]) -> None:
    """Colours, canvas, crop, resize, mirror and normalisation one after the other, in float32, full size."""
    image = photo(70, 100)
    distortion = np.array([[1.2, 0.1, -0.1, 9], [0.2, 0.8, 0.1, 9], [-0.1, 0.1, 1.1, 9]])
    canvas = np.full((270, 300, 3), MEAN * 255, np.float32)
    canvas[100:170, 100:200] = image @ distortion[:, :3].T + distortion[:, 3]
    left, top, width, height = window
    expected = mx.image.fixed_crop(mx.nd.array(canvas), left + 100, top + 100, width, height)
    expected = gluoncv_image.imresize(expected, SIZE, SIZE, interp=interpolation)
    expected = mx.nd.flip(expected, axis=1) if mirror else expected
    expected = mx.nd.image.normalize(mx.nd.image.to_tensor(expected), mean=tuple(MEAN), std=tuple(STD))

    colour = NORMALISE[:, :3] @ distortion
    colour[:, 3] += NORMALISE[:, 3]
    actual = transforms.render(image, window, SIZE, interpolation, colour, mirror)
    # Ours resizes bytes where nothing can overshoot, so it may be one step of 255 off, times the distortion.
    rounding = 0 if interpolation in (0, 2, 4) else 1.4 / 255 / 0.22
    np.testing.assert_allclose(actual, expected.asnumpy(), atol=rounding + 1e-4)


@pytest.mark.parametrize("height, width", [(70, 100), (30, 20), (70, 20), (SIZE, SIZE)])
def test_val_transform_is_gluoncvs(height: int, width: int) -> None:
    image = photo(height, width)
    expected, _ = SSDDefaultValTransform(SIZE, SIZE)(mx.nd.array(image, dtype="uint8"), LABEL)
    actual, scale = ValTransform(SIZE)(image)
    # MXNet brings an OpenCV of its own, which may round a byte the other way.
    np.testing.assert_allclose(actual, expected.asnumpy(), atol=1 / 255 / 0.22 + 1e-4)
    np.testing.assert_allclose(scale, [width / SIZE, height / SIZE])
    assert actual.dtype == scale.dtype == np.float32


def test_colours_are_distributed_as_gluoncvs() -> None:
    pixels = np.array([[[200, 40, 10], [30, 90, 220], [0, 0, 0]]], np.uint8)
    rng = np.random.default_rng(0)
    seed_globals(0)
    ours, theirs = [], []
    for _ in range(12000):
        colour = transforms.random_colour(rng)
        ours.append((pixels.reshape(-1, 3) @ colour[:, :3].T + colour[:, 3]).ravel())
    for _ in range(3000):
        image = experimental.image.random_color_distort(mx.nd.array(pixels)).asnumpy()
        theirs.append(((image / 255 - MEAN) / STD).ravel())
    assert_same_distributions(ours, theirs)


def test_expansion_is_distributed_as_gluoncvs() -> None:
    image = mx.nd.zeros((30, 40, 3))
    rng = np.random.default_rng(0)
    seed_globals(0)
    draws = [transforms.random_expand(40, 30, rng) for _ in range(8000)]
    ours = [(*shift, *canvas) for shift, canvas in draws if canvas != (40, 30)]
    theirs = [gluoncv_image.random_expand(image)[1] for _ in range(1000)]
    assert_same_distributions(ours, theirs)
    assert len(ours) == pytest.approx(4000, abs=250)  # a ratio near 1 can also leave the canvas as it is


def test_windows_are_distributed_as_gluoncvs() -> None:
    """Without objects GluonCV takes the first window that it draws."""
    empty = np.zeros((0, 6), np.float32)
    rng = np.random.default_rng(0)
    seed_globals(0)
    crop = experimental.bbox.random_crop_with_constraints
    ours = [transforms.random_crop(empty, 120, 90, rng)[1] for _ in range(10000)]
    theirs = [crop(empty, (120, 90))[1] for _ in range(10000)]
    both = [[(x, y, w, h, w / h, w * h) for x, y, w, h in sample] for sample in (ours, theirs)]
    assert_same_distributions(*both)


@pytest.mark.parametrize("objects, draws", [(LABEL, 800), (LARGE, 2500)], ids=["two", "large"])
def test_crops_with_objects_are_distributed_as_gluoncvs(objects: np.ndarray, draws: int) -> None:
    """Window and its area, how many objects are left, the first one's class and its box."""
    rng = np.random.default_rng(0)
    seed_globals(0)
    crop = experimental.bbox.random_crop_with_constraints
    ours = [transforms.random_crop(objects, 80, 60, rng) for _ in range(8000)]
    theirs = [crop(objects, (80, 60)) for _ in range(draws)]
    both = [
        [(*window, window[2] * window[3], len(left), *left[0, :5]) for left, window in sample]
        for sample in (ours, theirs)
    ]
    assert_same_distributions(*both)


def test_mirror_and_interpolation_are_even(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    render = transforms.render

    def record(*arguments: object) -> np.ndarray:
        drawn.append(arguments[3::2])
        return render(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(transforms, "render", record)
    transform, rng = TrainTransform(4, ANCHORS), np.random.default_rng(0)
    for _ in range(2000):
        transform(photo(20, 20), LABEL[:0], rng)
    interpolations, mirrors = zip(*drawn)
    np.testing.assert_allclose(np.bincount(interpolations), 400, atol=80)
    assert sum(mirrors) == pytest.approx(1000, abs=110)


def test_whole_pipeline_is_distributed_as_gluoncvs() -> None:
    """Objects left, the first one's box, and mean and spread of the picture."""

    def row(image: np.ndarray, label: np.ndarray) -> tuple:
        return len(label), *label[0, :5], image.mean(), image.std()

    image = photo(60, 80)
    transform, rng = TrainTransform(SIZE, ANCHORS), np.random.default_rng(0)
    ours = [row(*transform.augment(image, LABEL, rng)) for _ in range(2000)]
    seed_globals(0)
    source, gluoncv = mx.nd.array(image, dtype="uint8"), SSDDefaultTrainTransform(SIZE, SIZE)
    theirs = []
    for _ in range(500):
        augmented, label = gluoncv(source, LABEL)
        theirs.append(row(augmented.asnumpy(), label))
    assert_same_distributions(ours, theirs)


def test_objects_stay_on_their_pixels() -> None:
    """A red object on grey is found where its label says, whatever was drawn."""
    image = np.full((60, 80, 3), 124, np.uint8)
    image[20:40, 30:60] = (255, 0, 0)
    label = np.array([[30, 20, 60, 40, 0, 0]], np.float32)
    transform, rng = TrainTransform(SIZE, ANCHORS), np.random.default_rng(0)
    for _ in range(200):
        pixels, (box, *_) = transform.augment(image, label, rng)
        red = np.ptp(pixels * STD[:, None, None], axis=0)
        inside = np.zeros_like(red, bool)
        x0, y0, x1, y1 = np.round(box[:4]).astype(int)
        inside[y0:y1, x0:x1] = True
        centre = red[(y0 + y1) // 2, (x0 + x1) // 2]
        assert ((red > centre / 2) != inside).mean() < 0.06  # the pixels of the edge


def test_flip_alone_keeps_the_whole_picture() -> None:
    image, seen = photo(SIZE, SIZE), set()
    plain, _ = ValTransform(SIZE)(image)
    transform, rng = TrainTransform(SIZE, ANCHORS, "flip"), np.random.default_rng(0)
    for _ in range(20):
        pixels, label = transform.augment(image, LABEL, rng)
        mirrored = not np.array_equal(label, LABEL)
        seen.add(mirrored)
        np.testing.assert_allclose(pixels[:, :, ::-1] if mirrored else pixels, plain, atol=1e-5)
        expected = LABEL.copy()
        if mirrored:
            expected[:, [0, 2]] = SIZE - LABEL[:, [2, 0]]
        np.testing.assert_allclose(label, expected)
    assert seen == {True, False}


def test_targets_are_those_of_the_augmented_boxes() -> None:
    transform = TrainTransform(SIZE, ANCHORS)
    pixels, label = transform.augment(photo(60, 80), LABEL, np.random.default_rng(3))
    image, classes, offsets = transform(photo(60, 80), LABEL, np.random.default_rng(3))
    np.testing.assert_array_equal(image, pixels)
    assert set(classes) == {0.0, *(label[:, 4] + 1)}
    assert offsets.any(axis=1).sum() == np.count_nonzero(classes)


def test_draws_come_from_the_given_generator_alone() -> None:
    """What GluonCV makes of an image depends on what else the process draws, ours on its generator."""
    image = photo(60, 80)
    source, gluoncv = mx.nd.array(image, dtype="uint8"), SSDDefaultTrainTransform(SIZE, SIZE)
    ours, theirs = [], []
    for drawn_before in range(2):
        seed_globals(0)
        np.random.random(drawn_before)
        ours.append(TrainTransform(SIZE, ANCHORS)(image, LABEL, np.random.default_rng(5)))
        theirs.append(gluoncv(source, LABEL)[0].asnumpy())
    assert all(np.array_equal(a, b) for a, b in zip(*ours))
    assert not np.array_equal(*theirs)


@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (1, 500), (60, 80)])
@pytest.mark.parametrize("rows", [[], [[0, 0, 1, 1, 0, 0]], [[0, 0, 0, 0, 0, 0]]], ids=["none", "a pixel", "a point"])
def test_odd_images_give_finite_inputs(height: int, width: int, rows: list) -> None:
    label = np.array(rows, np.float32).reshape(-1, 6)
    transform, rng = TrainTransform(SIZE, ANCHORS), np.random.default_rng(0)
    for _ in range(100):
        image, classes, offsets = transform(photo(height, width), label, rng)
        assert image.shape == (3, SIZE, SIZE) and image.dtype == np.float32
        assert classes.shape == (len(ANCHORS),) and offsets.shape == (len(ANCHORS), 4)
        assert np.isfinite(image).all() and np.isfinite(offsets).all()


def test_input_is_left_alone() -> None:
    image, label = photo(60, 80), LABEL.copy()
    TrainTransform(SIZE, ANCHORS)(image, label, np.random.default_rng(0))
    np.testing.assert_array_equal(image, photo(60, 80))
    np.testing.assert_array_equal(label, LABEL)
