"""Fine-grained Feature Imitation against the published program's numbers, finite differences, and by definition."""

from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gan_kd.detectors.anchors import FixedAnchors
from gan_kd.distill.base import Compared, Seen
from gan_kd.distill.fine_grained import FineGrained
from gan_kd.gluon.optim import Position
from gan_kd.recipe import Adaptation
from gan_kd.recipe import FineGrained as Config
from tests.gradients import difference
from tests.rig import CPU, compared, marks

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "fgfi.npz"
SIDES, CHANNELS = (4, 2), (3, 5)


def square_anchors(stride, cells):
    y, x = np.mgrid[:cells, :cells] * stride + stride / 2
    half = stride / 2
    return np.stack([x - half, y - half, x + half, y + half], axis=-1)[:, :, None]


ANCHORS = FixedAnchors([square_anchors(16, 4), square_anchors(32, 2)])


def distiller(contexts=(CPU,), student=CHANNELS, **config):
    config = {"quiet": 0, "weight": 1.0, "adapter": Adaptation(sigma=0.1), **config}
    about = compared(CHANNELS, SIDES, contexts)._replace(anchors=ANCHORS, student_channels=tuple(student))
    return FineGrained(Config(**config), about)


LARGE, SMALL = [0, 0, 32, 32, 0], [16, 32, 32, 48, 1]
OBJECTS = [[LARGE], [SMALL, LARGE], []]


def seen(method, objects=OBJECTS, seed=0, student=CHANNELS):
    rng = np.random.default_rng(seed)

    def maps(channels):
        return [mx.nd.array(rng.standard_normal((len(objects), c, s, s))) for c, s in zip(channels, SIDES)]

    return Seen(
        maps(CHANNELS),
        maps(student),
        regions=marks(method.regions, [np.array(rows, np.float32).reshape(-1, 5) for rows in objects], 64),
    )


def value(method, part):
    return method.losses(part, len(part.regions[0]))["fine_grained"].asscalar()


@pytest.mark.skipif(not REFERENCE.is_file(), reason=f"no reference values at {REFERENCE}")
@pytest.mark.parametrize("case", ["voc_one", "voc_two", "small_anchors", "edge", "stride32"])
def test_published_losses_and_gradients(case):
    with np.load(REFERENCE) as arrays:
        given = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{case}/")}
    height, width = given["size"]
    anchors = FixedAnchors([given["anchors"].reshape(height, width, -1, 4)])
    level = compared([given["teacher"].shape[1]], [int(height)]).levels
    about = Compared(level, (CPU,), student_channels=(given["student"].shape[1],), anchors=anchors)
    method = FineGrained(Config(inclusive=True, quiet=0), about)  # threshold, weight and adapter are the published ones
    (layer,) = method.layers
    layer.weight.set_data(mx.nd.array(given["adapter_weight"]))
    layer.bias.set_data(mx.nd.array(given["adapter_bias"]))
    masks = np.empty((len(given["gt"]), height, width), np.float32)
    for row, count in enumerate(given["gt_count"]):
        method.regions.write(given["gt"][row, :count], *given["image"], [masks[row]])
    np.testing.assert_array_equal(masks, given["mask"][:, 0])
    assert masks.sum() == given["cells"]
    teacher, student = (mx.nd.array(given[whose]) for whose in ("teacher", "student"))
    student.attach_grad()
    with autograd.record():
        loss = method.losses(Seen([teacher], [student], regions=(masks,)), len(masks))["fine_grained"]
    loss.backward()
    np.testing.assert_allclose(layer(student).asnumpy(), given["adapted"], atol=2e-6)
    assert loss.asscalar() == pytest.approx(given["loss"], rel=2e-6)
    assert loss.asscalar() == pytest.approx(0.01 * given["imitation"], rel=2e-6)
    for name, found in (
        ("grad_student", student.grad), ("grad_weight", layer.weight.grad()), ("grad_bias", layer.bias.grad())
    ):  # fmt: skip
        np.testing.assert_allclose(found.asnumpy(), given[name], atol=2e-6 * np.abs(given[name]).max(), err_msg=name)


def by_definition(method, part, scope="union", normaliser="cells"):
    counts = [float(mask.sum()) for mask in part.regions]
    if scope == "union":
        counts = [sum(counts)] * len(counts)
    total = 0.0
    for layer, own, real, mask, count in zip(method.layers, part.student, part.teacher, part.regions, counts):
        squares = (mask[:, None] * (layer(own).asnumpy().astype(float) - real.asnumpy()) ** 2).sum()
        total += squares / (2 * count) / (real.shape[1] if normaliser == "elements" else 1)
    return total


@pytest.mark.parametrize("scope", ["union", "per_map"])
@pytest.mark.parametrize("normaliser", ["cells", "elements"])
def test_loss_of_several_maps_is_the_definition(scope, normaliser):
    method = distiller(student=(2, 4), scope=scope, normaliser=normaliser, weight=0.5)
    part = seen(method, student=(2, 4))
    assert [mask.sum() for mask in part.regions] == ([1, 2] if scope == "union" else [9, 3])
    assert value(method, part) == pytest.approx(0.5 * by_definition(method, part, scope, normaliser), rel=1e-5)


def test_a_batch_without_an_object_costs_nothing():
    method = distiller()
    part = seen(method, [[], []])
    for m in part.student:
        m.attach_grad()
    with autograd.record():
        loss = method.losses(part, 2)["fine_grained"]
    loss.backward()
    assert loss.asscalar() == 0
    assert all((m.grad.asnumpy() == 0).all() for m in part.student)


def test_the_first_batches_of_a_stage_are_quiet():
    method = distiller(quiet=3)
    part = seen(method)
    found = []
    for step in range(5):
        method.update([part], 3, Position(step, 10, 1))
        found.append(value(method, part))
    assert found[:3] == [0, 0, 0] and found[3] == found[4] > 0


def test_devices_share_one_normaliser():
    """One device has a single cell, the other the rest: both divide by all."""
    one, two = distiller(), distiller([mx.cpu(0), mx.cpu(1)])
    whole = seen(one)
    parts = [
        Seen(
            *([m[rows].as_in_context(mx.cpu(device)) for m in maps] for maps in (whole.teacher, whole.student)),
            regions=tuple(mask[rows] for mask in whole.regions),
        )
        for device, rows in enumerate((slice(0, 1), slice(1, 3)))
    ]
    shares = two.shares(parts, 3)["fine_grained"]
    assert [share.context for share in shares] == [mx.cpu(0), mx.cpu(1)]
    assert all(share.asscalar() > 0 for share in shares)
    assert sum(share.asscalar() for share in shares) == pytest.approx(value(one, whole), rel=1e-6)


def test_gradients_are_the_finite_differences():
    method = distiller(student=(2, 4), adapter=Adaptation(sigma=0.3))
    method.layers.cast("float64")
    part = seen(method, student=(2, 4))
    part = part._replace(
        teacher=[m.astype("float64") for m in part.teacher],
        student=[m.astype("float64") for m in part.student],
        regions=tuple(mask.astype("float64") for mask in part.regions),
    )
    for m in part.student:
        m.attach_grad()

    def loss():
        return method.losses(part, 3)["fine_grained"]

    with autograd.record():
        total = loss()
    total.backward()
    rng = np.random.default_rng(0)
    arrays = [(m, m.grad) for m in part.student] + [(p.data(), p.grad()) for p in method.parameters().values()]
    assert len(arrays) == 6
    for array, gradient in arrays:
        gradient = gradient.asnumpy()
        scale = np.abs(gradient).max()
        assert scale > 0
        likely = np.argsort(-np.abs(gradient), axis=None)[: max(3, array.size // 4)]
        for place in rng.choice(likely, 3, replace=False):
            index = np.unravel_index(place, array.shape)
            expected = difference(loss, array, index, 1e-6)
            assert gradient[index] == pytest.approx(expected, rel=1e-5, abs=1e-5 * scale)


def test_first_values_of_the_adaptation_layers_are_the_published_ones():
    method = distiller(student=(64, 64), adapter=Adaptation())
    (weight, *_), (bias, *_) = ([p.data().asnumpy() for n, p in method.parameters().items() if n.endswith(kind)]
                                for kind in ("weight", "bias"))  # fmt: skip
    assert weight.shape == (3, 64, 3, 3)
    assert np.abs(weight).max() < 2e-4 and weight.std() == pytest.approx(0.92e-4, rel=0.1)  # cut by the remainder
    assert (bias != 0).all() and np.abs(bias).max() <= 1 / np.sqrt(64 * 9)
    again = distiller(student=(64, 64), adapter=Adaptation()).parameters()
    np.testing.assert_array_equal(weight, again["0.weight"].data().asnumpy())
    linear = distiller(adapter=Adaptation(kernel=1, relu=False, sigma=1.0))
    assert (linear.layers[0](-mx.nd.ones((1, 3, 4, 4))).asnumpy() < 0).any()


def test_diagnosis_has_gradients_and_the_share_of_cells():
    method = distiller()
    part = seen(method)
    found = method.diagnose([part], 3)
    assert found["fine_grained_cells"] == pytest.approx([1 / 48, 2 / 12])
    for m in part.student:
        m.attach_grad()
    with autograd.record():
        loss = method.losses(part, 3)["fine_grained"]
    loss.backward()
    assert found["gradient_fine_grained"] == pytest.approx([float(m.grad.norm().asscalar()) for m in part.student])
