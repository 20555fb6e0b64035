"""The extractor's shapes, known before any batch, and a frozen one that training leaves alone."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.network import split

CLASSES = ["cat", "dog"]


def extractor(backbone="mobilenet0.25", size=128):
    return split(zoo.build(backbone, size, CLASSES))[0]


@pytest.mark.parametrize(
    "backbone, size, channels, sizes",
    [
        ("mobilenet0.25", 512, [128, 256, 512, 512, 256, 256], [32, 16, 8, 4, 2, 1]),
        ("mobilenet0.75", 300, [384, 768, 512, 512, 256, 256], [19, 10, 5, 3, 2, 1]),
        ("mobilenetv2_1.0", 256, [576, 1280, 512, 512, 256, 256], [16, 8, 4, 2, 1, 1]),
        ("resnet18_v1", 128, [256, 512, 512, 512, 256, 256], [8, 4, 2, 1, 1, 1]),
        ("resnet50_v1", 512, [1024, 2048, 512, 512, 256, 256], [32, 16, 8, 4, 2, 1]),
        ("vgg16_atrous", 512, [512, 1024, 512, 256, 256, 256, 256], [64, 32, 16, 8, 4, 2, 1]),
    ],
)
def test_shapes_are_known_without_a_batch(backbone, size, channels, sizes):
    net = extractor(backbone, size)
    assert (net.channels, net.sizes) == (channels, sizes)
    assert net.strides == [size / side for side in sizes]


def test_maps_have_the_announced_shapes_hybridized_or_not():
    net = extractor(size=160)
    x = mx.nd.random.normal(shape=(2, 3, 160, 160))
    plain = net(x)
    assert [m.shape for m in plain] == [(2, c, s, s) for c, s in zip(net.channels, net.sizes)]
    net.hybridize(static_alloc=True, static_shape=True)
    for compiled, expected in zip(net(x), plain):
        np.testing.assert_array_equal(compiled.asnumpy(), expected.asnumpy())


def test_training_leaves_a_frozen_extractor_unchanged():
    teacher, student = extractor(), extractor()
    teacher.freeze()
    teacher.hybridize(static_alloc=True, static_shape=True)
    before = {name: p.data().asnumpy().tobytes() for name, p in teacher.collect_params().items()}
    trained = student.collect_params()
    some = min(name for name in trained if name.endswith("weight"))
    start = trained[some].data().asnumpy()
    trainer = gluon.Trainer(trained, "sgd", {"learning_rate": 0.1})
    x = mx.nd.random.normal(shape=(2, 3, 128, 128))
    maps = teacher(x)
    with autograd.record():
        loss = mx.nd.add_n(*[((s - t) ** 2).mean() for s, t in zip(student(x), maps)])
    loss.backward()
    trainer.step(1)
    after = {name: p.data().asnumpy().tobytes() for name, p in teacher.collect_params().items()}
    assert after == before
    assert all(p.grad_req == "null" for p in teacher.collect_params().values())
    assert not np.array_equal(trained[some].data().asnumpy(), start)
