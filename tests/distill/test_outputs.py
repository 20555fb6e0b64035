"""Imitation of the head's outputs against NumPy from the equations, its gradient, devices, and unequal anchors."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.detectors.ssd.head import Outputs
from gan_kd.detectors.yolo3.network import Predictions
from gan_kd.distill.base import Seen
from gan_kd.distill.outputs import OutputImitation
from gan_kd.recipe import OutputImitation as Config
from tests.rig import compared

ANCHORS, CLASSES = 7, 3


def outputs(seed, size=4, context=None):
    rng = np.random.default_rng(seed)
    arrays = 2 * rng.standard_normal((size, ANCHORS, CLASSES + 1)), rng.standard_normal((size, ANCHORS, 4))
    return Outputs(*(mx.nd.array(array, ctx=context or mx.cpu(0)) for array in arrays))


def by_definition(teacher, student, weight=1.0, boxes=1.0, temperature=1.0):
    def softmax(x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    (t, tb), (s, sb) = ([array.asnumpy().astype("float64") for array in one] for one in (teacher, student))
    some = 1 - softmax(t)[..., 0]
    p, q = softmax(t / temperature), softmax(s / temperature)
    apart = np.abs(sb - tb)
    smooth = np.where(apart < 1, 0.5 * apart**2, apart - 0.5).sum(axis=-1)
    count = max(some.sum(), 1)
    classes = weight * temperature**2 * (p * np.log(p / q)).sum() / count
    return classes, weight * boxes * (some * smooth).sum() / count


@pytest.mark.parametrize("config", [{}, {"weight": 0.5, "boxes": 2.0, "temperature": 3.0}])
def test_losses_are_those_of_the_equations(config):
    teacher, student = outputs(0), outputs(1)
    found = OutputImitation(Config(**config), compared([], [])).shares([Seen([], [], (teacher, student))], 4)
    assert tuple(found) == ("outputs", "outputs_boxes")
    assert [loss.asscalar() for (loss,) in found.values()] == pytest.approx(
        by_definition(teacher, student, **config), rel=1e-4
    )


def test_devices_share_one_count_of_objects():
    teacher, student = outputs(0), outputs(1)
    teacher.classes[2:, :, 0] += 5  # the second device's half holds hardly an object
    devices = []
    for rows, context in ((slice(0, 2), mx.cpu(0)), (slice(2, 4), mx.cpu(1))):
        devices.append(Seen([], [], tuple(
            Outputs(*(a[rows].as_in_context(context) for a in one)) for one in (teacher, student)
        )))  # fmt: skip
    found = OutputImitation(Config(), compared([], [])).shares(devices, 4)
    for parts, whole in zip(found.values(), by_definition(teacher, student)):
        assert sum(part.asscalar() for part in parts) == pytest.approx(whole, rel=1e-4)


def predictions(seed, size=2):
    rng = np.random.default_rng(seed)
    widths = (4, 1, 2, 2, CLASSES)
    return Predictions(*(mx.nd.array(2 * rng.standard_normal((size, ANCHORS, width))) for width in widths))


def independent_by_definition(teacher, student, weight=1.0, boxes=1.0, temperature=1.0):
    def divergence(real, fake):
        p, q = (1 / (1 + np.exp(-logits / temperature)) for logits in (real, fake))
        return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

    t, s = (Predictions(*(array.asnumpy().astype("float64") for array in one)) for one in (teacher, student))
    some = 1 / (1 + np.exp(-t.objectness))
    count = max(some.sum(), 1)
    found = divergence(t.objectness, s.objectness).sum() + (some * divergence(t.classes, s.classes)).sum()
    places = 1 / (1 + np.exp(-s.centres)) - 1 / (1 + np.exp(-t.centres))
    apart = np.abs(np.concatenate([places, s.scales - t.scales], axis=2))
    smooth = np.where(apart < 1, 0.5 * apart**2, apart - 0.5)
    return weight * temperature**2 * found / count, weight * boxes * (some * smooth).sum() / count


@pytest.mark.parametrize("config", [{}, {"weight": 0.5, "boxes": 2.0, "temperature": 3.0}])
def test_losses_of_yolov3_are_those_of_the_equations(config):
    teacher, student = predictions(0), predictions(1)
    found = OutputImitation(Config(**config), compared([], [])).shares([Seen([], [], (teacher, student))], 2)
    assert [loss.asscalar() for (loss,) in found.values()] == pytest.approx(
        independent_by_definition(teacher, student, **config), rel=1e-4
    )
    same = OutputImitation(Config(**config), compared([], [])).shares([Seen([], [], (teacher, teacher))], 2)
    assert [loss.asscalar() for (loss,) in same.values()] == pytest.approx([0, 0], abs=1e-5)


def test_an_image_without_objects_is_finite():
    teacher = outputs(0)
    teacher.classes[:, :, 0] = 1000
    found = OutputImitation(Config(), compared([], [])).shares([Seen([], [], (teacher, outputs(1)))], 4)
    assert all(np.isfinite(part.asscalar()) for parts in found.values() for part in parts)


def test_gradient_passes_finite_differences():
    teacher, student = outputs(0), outputs(1)
    for array in student:
        array.attach_grad()
    with autograd.record():
        found = OutputImitation(Config(), compared([], [])).shares([Seen([], [], (teacher, student))], 4)
        total = found["outputs"][0] + found["outputs_boxes"][0]
    total.backward()
    rng = np.random.default_rng(2)
    for index, array in enumerate(student):
        direction = mx.nd.array(rng.standard_normal(array.shape))
        up, down = (
            sum(by_definition(teacher, Outputs(*(a + sign * 1e-3 * direction if k == index else a
                                                for k, a in enumerate(student)))))
            for sign in (1, -1)
        )  # fmt: skip
        assert (array.grad * direction).sum().asscalar() == pytest.approx((up - down) / 2e-3, rel=1e-2, abs=1e-4)
