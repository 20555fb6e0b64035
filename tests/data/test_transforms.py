"""The transforms against GluonCV's: by pixels where the draw is given, by distribution where it is random."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from gluoncv.data.transforms import experimental
from gluoncv.data.transforms import image as gluoncv_image
from gluoncv.data.transforms.presets.ssd import SSDDefaultTrainTransform, SSDDefaultValTransform
from gluoncv.utils import bbox_iou
from scipy.stats import ks_2samp, kstest, uniform

from gan_kd.data import augment, images, pixels
from gan_kd.data.pixels import MEAN, NORMALISE, STD, Look, ValTransform
from gan_kd.data.sizes import Bounded, Square
from gan_kd.detectors.ssd.transform import SSDTrainTransform

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
    [(10, 5, 60, 40), (-15, -20, 72, 60), (-40, -30, 192, 144), (90, 60, 30, 30), (-50, 0, 40, 40), (-36, 0, 32, 32)],
    ids=["inside", "past the corner", "around", "past the far corner", "beside", "just beside"],
)
def test_render_is_gluoncvs_steps(interpolation: int, mirror: bool, window: tuple[int, int, int, int]) -> None:
    """Colours, canvas, crop, resize, mirror and normalisation one after the other, in float32, full size.

    At some output pixel near the image's edges a pixel of these windows begins: a part can be resized exactly.
    """
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
    actual = np.full((3, SIZE, SIZE), np.nan, np.float32)
    pixels.render(image, Look(1, window, interpolation, colour, mirror), actual)
    np.testing.assert_allclose(actual, expected.asnumpy(), atol=1e-4)


@pytest.mark.parametrize("seed", range(10))
def test_an_image_on_a_canvas_is_in_its_place(seed: int) -> None:
    """Only what shows the image is calculated: to a 32nd of a pixel as if the whole canvas had been resized."""
    rng = np.random.default_rng(seed)
    image = photo(70, 100)
    width, height = rng.integers(200, 400, 2).tolist()
    left, top = -int(rng.integers(width - 100)), -int(rng.integers(height - 70))
    canvas = np.zeros((height, width, 3), np.float32)
    canvas[-top : 70 - top, -left : 100 - left] = cv2.transform(image.astype(np.float32), NORMALISE)
    expected, moved = (
        cv2.warpAffine(canvas, np.array([[width / SIZE, 0, x], [0, height / SIZE, y]]), (SIZE, SIZE), flags=17)
        for x, y in ((width / SIZE / 2 - 0.5, height / SIZE / 2 - 0.5), (width / SIZE, height / SIZE))
    )
    actual = np.empty((3, SIZE, SIZE), np.float32)
    pixels.render(image, Look(1, (left, top, width, height), cv2.INTER_LINEAR, NORMALISE, False), actual)
    error = np.abs(actual - expected.transpose(2, 0, 1)).mean()
    assert error < np.abs(moved - expected).mean() / 8  # that is how much half a pixel is


def test_spans_are_scaled_as_the_whole() -> None:
    rng = np.random.default_rng(0)
    parts = 0
    for _ in range(10000):
        length, size = rng.integers(1, 1200), rng.integers(1, 520)
        first, last = np.sort(rng.integers(-length, 2 * length, 2)).tolist()
        x0, x1, a, b = pixels._span(first, last, int(length), int(size))
        assert 0 <= x0 <= x1 <= size and 0 <= a <= b <= length
        scale = length / size
        if x1 > x0:
            assert max(abs(x0 * scale - a), abs(x1 * scale - b)) <= scale / 32 + 1e-9
            assert a <= max(first - 5, 0) and b >= min(last + 5, length)
            parts += x1 - x0 < size
        else:
            assert last <= 0 or first >= length
    assert parts > 2000


def test_an_image_is_reduced_where_the_window_allows_it() -> None:
    """And the boxes are those of the window that is shown, to the pixel."""
    transform = SSDTrainTransform(SIZE, ANCHORS)
    label = np.array([[100, 50, 300, 200, 1, 0]], np.float32)
    seen = np.zeros(9, int)
    for seed in range(1000):
        (full, before), (look, left) = (
            transform.draw(label, 401, 303, np.random.default_rng(seed), reducible) for reducible in (False, True)
        )
        n = look.reduction
        seen[n] += 1
        assert full.reduction == 1 and look[2:3] == full[2:3] and look.mirror == full.mirror
        assert n == 8 or min(full.window[2:]) < 2 * n * SIZE
        assert n == 1 or min(look.window[2:]) >= SIZE
        corner, size = np.array(look.window[:2]) * n, np.array(look.window[2:]) * n
        margin = np.array(full.window[:2]) - corner
        assert (margin >= 0).all() and (margin < n).all()
        margin = corner + size - full.window[:2] - full.window[2:]
        assert (margin >= 0).all() and (margin < n).all()
        (x0, y0, x1, y1, *_), scale = left[0], size / SIZE
        if look.mirror:
            x0, x1 = SIZE - x1, SIZE - x0
        box = np.array([x0, y0, x1, y1]) * np.tile(scale, 2) + np.tile(corner, 2)
        visible = np.clip(label[0, :4], np.tile(corner, 2), np.tile(corner + size, 2))
        np.testing.assert_allclose(box, visible, atol=0.01)
        np.testing.assert_allclose(left[0, :4], before[0, :4], atol=2)
    assert (seen[[1, 2, 4, 8]] > 5).all()


@pytest.mark.parametrize("height, width", [(70, 100), (30, 20), (70, 20), (SIZE, SIZE)])
def test_val_transform_is_gluoncvs(height: int, width: int) -> None:
    image = photo(height, width)
    expected, _ = SSDDefaultValTransform(SIZE, SIZE)(mx.nd.array(image, dtype="uint8"), LABEL)
    actual, scale = ValTransform(Square(SIZE))(image)
    # MXNet brings an OpenCV of its own, which may round a byte the other way.
    np.testing.assert_allclose(actual, expected.asnumpy(), atol=1 / 255 / 0.22 + 1e-4)
    np.testing.assert_allclose(scale, [width / SIZE, height / SIZE])
    assert actual.dtype == scale.dtype == np.float32


def test_an_image_keeps_its_aspect_ratio_in_a_bounded_input() -> None:
    """It fills the upper left corner, the rest is 0, and the factors lead back to its pixels."""
    image = photo(40, 100)
    actual, factors = ValTransform(Bounded(20, 48, 16))(image)
    assert actual.shape == (3, 32, 48) and not actual[:, 19:].any()
    expected = cv2.resize(image, (48, 19), interpolation=cv2.INTER_AREA) @ NORMALISE[:, :3].T + NORMALISE[:, 3]
    np.testing.assert_allclose(actual[:, :19], expected.transpose(2, 0, 1), atol=1e-4)
    np.testing.assert_allclose(factors, [100 / 48, 40 / 19])


def test_colours_are_distributed_as_gluoncvs() -> None:
    pixels = np.array([[[200, 40, 10], [30, 90, 220], [0, 0, 0]]], np.uint8)
    rng = np.random.default_rng(0)
    seed_globals(0)
    ours, theirs = [], []
    for _ in range(12000):
        colour = augment.random_colour(rng)
        ours.append((pixels.reshape(-1, 3) @ colour[:, :3].T + colour[:, 3]).ravel())
    for _ in range(3000):
        image = experimental.image.random_color_distort(mx.nd.array(pixels)).asnumpy()
        theirs.append(((image / 255 - MEAN) / STD).ravel())
    assert_same_distributions(ours, theirs)


def test_expansion_is_distributed_as_gluoncvs() -> None:
    image = mx.nd.zeros((30, 40, 3))
    rng = np.random.default_rng(0)
    seed_globals(0)
    draws = [augment.random_expand(40, 30, rng) for _ in range(10000)]
    ours = [(*shift, *canvas) for shift, canvas in draws if canvas != (40, 30)]
    theirs = [gluoncv_image.random_expand(image)[1] for _ in range(1000)]
    assert_same_distributions(ours, theirs)
    assert len(ours) == pytest.approx(5000, abs=250)  # a ratio near 1 can also leave the canvas as it is


def test_windows_are_distributed_as_gluoncvs() -> None:
    """Without objects GluonCV takes the first window that it draws."""
    empty = np.zeros((0, 6), np.float32)
    rng = np.random.default_rng(1)
    seed_globals(1)
    crop = experimental.bbox.random_crop_with_constraints
    ours = [augment.random_crop(empty, 120, 90, rng)[1] for _ in range(30000)]
    theirs = [crop(empty, (120, 90))[1] for _ in range(30000)]
    both = [[(x, y, w, h, w / h, w * h) for x, y, w, h in sample] for sample in (ours, theirs)]
    assert_same_distributions(*both)


@pytest.mark.parametrize("objects, draws", [(LABEL, 800), (LARGE, 2500)], ids=["two", "large"])
def test_crops_with_objects_are_distributed_as_gluoncvs(objects: np.ndarray, draws: int) -> None:
    """Window, aspect ratio, area, least IoU with an object, how many are left, the first one's class and box."""
    rng = np.random.default_rng(0)
    seed_globals(0)
    crop = experimental.bbox.random_crop_with_constraints

    def row(left: np.ndarray, window: tuple[int, int, int, int]) -> tuple:
        x, y, width, height = window
        iou = bbox_iou(objects[:, :4], np.array([[x, y, x + width, y + height]])).min()
        return *window, width / height, width * height, iou, len(left), *left[0, :5]

    ours = [row(*augment.random_crop(objects, 80, 60, rng)) for _ in range(10000)]
    theirs = [row(*crop(objects, (80, 60))) for _ in range(draws)]
    assert_same_distributions(ours, theirs)


@pytest.mark.parametrize("bound", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_windows_keep_the_bound_on_the_iou(bound: float) -> None:
    """Of 10,000 candidates those are taken that GluonCV's IoU allows."""
    objects = np.array([[4, 3, 79, 58], [2, 6, 78, 59]], np.float32)
    windows = augment._random_windows(80, 60, 10000, np.random.default_rng(0))
    iou = bbox_iou(objects, np.concatenate([windows[:2], windows[:2] + windows[2:]]).T).min(axis=0)
    enough = augment._overlap(objects, windows, bound)
    np.testing.assert_array_equal(enough, iou >= bound)
    assert 0 < enough.mean() < 1


def test_windows_are_of_the_size_and_shape_that_is_meant() -> None:
    x, y, width, height = augment._random_windows(1200, 900, 10000, np.random.default_rng(0))
    assert (x >= 0).all() and (y >= 0).all() and (x + width <= 1200).all() and (y + height <= 900).all()
    wide, high = width / 1200, height / 900
    scale, aspect = np.sqrt(wide * high), wide / high  # but for the rounding to whole pixels
    assert 0.298 < scale.min() < 0.302 and 0.99 < scale.max() <= 1
    assert 0.495 < aspect.min() < 0.51 and 1.97 < aspect.max() < 2.01
    assert kstest(scale, uniform(0.3, 0.7).cdf).pvalue > 1e-3


def test_colours_stay_in_their_ranges() -> None:
    """A grey pixel shows brightness and contrast alone: half of 10,000 draws have each, evenly in its range."""
    rng = np.random.default_rng(0)
    colours = np.array([augment.random_colour(rng) for _ in range(10000)])
    contrast = (colours[:, :, :3].sum(axis=2) * STD * 255).mean(axis=1)
    brightness = ((colours[:, :, 3] * STD + MEAN) * 255).mean(axis=1) / contrast
    same = np.abs(contrast - 1) < 5e-3  # the matrices of the hue are rounded: grey is kept to a few thousandths
    assert same.mean() == pytest.approx(0.5, abs=0.03)
    assert 0.49 < contrast.min() < 0.51 and 1.49 < contrast.max() < 1.51
    assert kstest(contrast[~same], uniform(0.5, 1).cdf).pvalue > 1e-3
    same = np.abs(brightness) < 1e-6
    assert same.mean() == pytest.approx(0.5, abs=0.02)
    assert -32.1 < brightness.min() < -31.9 and 31.9 < brightness.max() < 32.1
    assert kstest(brightness[~same], uniform(-32, 64).cdf).pvalue > 1e-3
    plain = np.isclose(colours, NORMALISE).all(axis=(1, 2))
    assert plain.mean() == pytest.approx(1 / 16, abs=0.01)  # none of the four


def test_mirror_and_interpolation_are_even() -> None:
    transform, rng = SSDTrainTransform(SIZE, ANCHORS), np.random.default_rng(0)
    looks = [transform.draw(LABEL, 80, 60, rng, reducible=False)[0] for _ in range(10000)]
    np.testing.assert_allclose(np.bincount([look.interpolation for look in looks]), 2000, atol=160)
    assert sum(look.mirror for look in looks) == pytest.approx(5000, abs=200)


def test_whole_pipeline_is_distributed_as_gluoncvs() -> None:
    """Objects left, the first one's box, and mean and spread of the picture."""

    def row(image: np.ndarray, label: np.ndarray) -> tuple:
        return len(label), *label[0, :5], image.mean(), image.std()

    image = photo(60, 80)
    transform, rng = SSDTrainTransform(SIZE, ANCHORS), np.random.default_rng(0)
    ours = [row(*transform.augment(image, LABEL, rng)) for _ in range(3000)]
    seed_globals(0)
    source, gluoncv = mx.nd.array(image, dtype="uint8"), SSDDefaultTrainTransform(SIZE, SIZE)
    theirs = []
    for _ in range(500):
        augmented, label = gluoncv(source, LABEL)
        theirs.append(row(augmented.asnumpy(), label))
    assert_same_distributions(ours, theirs)


@pytest.mark.parametrize("scale", [1, 5])
def test_objects_stay_on_their_pixels(tmp_path: Path, scale: int) -> None:
    """A red object on grey is found where its label says, whatever was drawn, and however the file is decoded."""
    image = np.full((60 * scale, 81 * scale, 3), 124, np.uint8)
    image[20 * scale : 40 * scale, 30 * scale : 60 * scale] = (255, 0, 0)
    file = tmp_path / "red.jpg"
    cv2.imwrite(str(file), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    label = np.array([[30, 20, 60, 40, 0, 0]], np.float32) * ([scale] * 4 + [1, 1])
    transform, rng = SSDTrainTransform(SIZE, ANCHORS), np.random.default_rng(0)
    shown, reductions = np.empty((3, SIZE, SIZE), np.float32), set()
    for _ in range(200):
        look, (box, *_) = transform.draw(label.astype(np.float32), 81 * scale, 60 * scale, rng, reducible=True)
        pixels.render(images.read(file, look.reduction), look, shown)
        reductions.add(look.reduction)
        red = np.ptp(shown * STD[:, None, None], axis=0)
        inside = np.zeros_like(red, bool)
        x0, y0, x1, y1 = np.round(box[:4]).astype(int)
        inside[y0:y1, x0:x1] = True
        centre = red[(y0 + y1) // 2, (x0 + x1) // 2]
        assert ((red > centre / 2) != inside).mean() < 0.06  # the pixels of the edge
    assert reductions == ({1, 2, 4} if scale == 1 else {1, 2, 4, 8})


def test_flip_alone_keeps_the_whole_picture() -> None:
    image, seen = photo(SIZE, SIZE), set()
    plain, _ = ValTransform(Square(SIZE))(image)
    transform, rng = SSDTrainTransform(SIZE, ANCHORS, "flip"), np.random.default_rng(0)
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
    transform = SSDTrainTransform(SIZE, ANCHORS)
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
        ours.append(SSDTrainTransform(SIZE, ANCHORS)(image, LABEL, np.random.default_rng(5)))
        theirs.append(gluoncv(source, LABEL)[0].asnumpy())
    assert all(np.array_equal(a, b) for a, b in zip(*ours))
    assert not np.array_equal(*theirs)


@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (1, 500), (60, 80)])
@pytest.mark.parametrize("rows", [[], [[0, 0, 1, 1, 0, 0]], [[0, 0, 0, 0, 0, 0]]], ids=["none", "a pixel", "a point"])
def test_odd_images_give_finite_inputs(height: int, width: int, rows: list) -> None:
    label = np.array(rows, np.float32).reshape(-1, 6)
    transform, rng = SSDTrainTransform(SIZE, ANCHORS), np.random.default_rng(0)
    for _ in range(100):
        image, classes, offsets = transform(photo(height, width), label, rng)
        assert image.shape == (3, SIZE, SIZE) and image.dtype == np.float32
        assert classes.shape == (len(ANCHORS),) and offsets.shape == (len(ANCHORS), 4)
        assert np.isfinite(image).all() and np.isfinite(offsets).all()


def test_input_is_left_alone() -> None:
    image, label = photo(60, 80), LABEL.copy()
    SSDTrainTransform(SIZE, ANCHORS)(image, label, np.random.default_rng(0))
    np.testing.assert_array_equal(image, photo(60, 80))
    np.testing.assert_array_equal(label, LABEL)
