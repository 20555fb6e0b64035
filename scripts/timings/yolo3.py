"""YOLOv3 against GluonCV: a training step, and images a second that one process makes ready for training."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from gluoncv.data.batchify import Pad, Stack, Tuple
from gluoncv.data.transforms.presets.yolo import YOLO3DefaultTrainTransform
from gluoncv.model_zoo.yolo.yolo3 import YOLOV3
from mxnet import autograd, gluon, nd

from gan_kd.data import demo, voc
from gan_kd.data.batch import TrainBatch
from gan_kd.data.loader import Loader
from gan_kd.data.sizes import Square
from gan_kd.detectors.base import Parts
from gan_kd.detectors.yolo3 import zoo
from gan_kd.detectors.yolo3.anchors import anchor_count
from gan_kd.detectors.yolo3.loss import YOLO3DetectionLoss, spread
from gan_kd.detectors.yolo3.network import join, split
from gan_kd.detectors.yolo3.targets import ROW, YOLO3Targets
from gan_kd.detectors.yolo3.transform import YOLO3TrainTransform
from gan_kd.gluon.optim import Optimisation
from gan_kd.recipe import Schedule
from gan_kd.system.timing import Result, in_turn, ratios
from gan_kd.training.networks import Networks
from gan_kd.training.step import Step
from scripts.timings import loader
from scripts.timings.field import SGD
from scripts.timings.step import CLASSES, CPU, HERE

SIZE = 416
_OBJECTS = 4  # of a drawn image


def run(rounds: int) -> list[Result]:
    """yolo3_step_over_gluoncv and yolo3_loader_ratio of YOLOv3 on MobileNet1.0 at 416 px."""
    return [step(rounds), loading(rounds)]


def step(rounds: int, backbone: str = "mobilenet1.0", size: int = SIZE, batch: int = 4) -> Result:
    """Seconds of our step by those of GluonCV's, which is given its targets: they come from its loader."""
    samples = random_batch(batch, size)
    seconds = in_turn(
        {"ours": our_step(zoo.build(backbone, CLASSES), samples),
         "GluonCV": script_step(zoo.build(backbone, CLASSES), samples)},
        rounds,
    )  # fmt: skip
    return Result(
        "yolo3_step_over_gluoncv",
        f"Our training step by GluonCV's: YOLOv3 {backbone}, {size} px, batch {batch}, float32.",
        ratios(seconds["ours"], seconds["GluonCV"]),
        1.05,
        at_least=False,
        details={f"{name}, s": float(np.median(each)) for name, each in seconds.items()},
    )


def random_batch(count: int, size: int) -> TrainBatch:
    """A batch of noise with objects at random places, and their targets."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, size / 2, (count, _OBJECTS, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, size / 2, corners.shape)], axis=2)
    labels = rng.integers(0, len(CLASSES), (count, _OBJECTS))
    rows: np.ndarray = np.full((count, _OBJECTS, ROW), -1, np.float32)
    targets = YOLO3Targets(size)
    for image in range(count):
        found = targets(boxes[image], labels[image])
        rows[image, : len(found)] = found
    truth = np.concatenate([boxes, labels[:, :, None]], axis=2).astype(np.float32)
    return TrainBatch(rng.standard_normal((count, 3, size, size), "float32"), truth, (rows,))


def our_step(net: YOLOV3, batch: TrainBatch) -> Callable[[], None]:
    """The step of a stage without distillers."""
    size = batch.images.shape[2]
    networks = Networks(join(Parts(*split(net, size), Square(size))), YOLO3DetectionLoss())
    networks.hybridize()
    train = Step(networks, [], Optimisation(networks.parameters(), SGD, Schedule(), [CPU]), [CPU])

    def call() -> None:
        train(batch, HERE)
        nd.waitall()

    return call


def script_step(net: YOLOV3, batch: TrainBatch) -> Callable[[], None]:
    """As in GluonCV's train_yolo3.py, whose losses are sums over an image."""
    net.hybridize()
    trainer = gluon.Trainer(
        net.collect_params(), "sgd", {"learning_rate": SGD.lr, "momentum": SGD.momentum, "wd": SGD.wd}
    )
    images, boxes = nd.array(batch.images), nd.array(batch.truth[:, :, :4])
    targets = spread(nd.array(batch.targets[0]), anchor_count(images.shape[2]), len(CLASSES))

    def call() -> None:
        with autograd.record():
            losses = net(images, boxes, *targets)
            total = nd.add_n(*losses)
        total.backward()
        trainer.step(len(images))
        nd.waitall()

    return call


def loading(rounds: int) -> Result:
    """Seconds of an epoch of GluonCV's loader by ours: one process and one thread each, on the same files."""
    with tempfile.TemporaryDirectory() as folder, loader.one_thread():
        root, classes = loader.PHOTOS, list(voc.CLASSES)
        if not root.is_dir():
            root, classes = Path(folder) / "drawn", list(demo.CLASSES)
            demo.draw(root, loader.IMAGES, 0, seed=0, size=loader.DRAWN_SIZE)
        dataset = loader.dataset_of(root, classes)
        ours = Loader(dataset, YOLO3TrainTransform([SIZE]), loader.BATCH, num_workers=0, seed=0, train=True)
        transform = YOLO3DefaultTrainTransform(SIZE, SIZE, zoo.build("mobilenet0.25", classes))
        batchify = Tuple(*(Stack() for _ in range(6)), Pad(axis=0, pad_val=-1))
        epochs = iter(range(rounds + 1))
        seconds = in_turn(
            {
                "ours": lambda: [None for _ in ours.epoch(next(epochs))],
                "GluonCV": partial(loader.read_all, loader.gluoncv(root, classes, transform, batchify)),
            },
            rounds,
        )
    photos = "VOC2012 photos" if root == loader.PHOTOS else "drawn images"
    return Result(
        "yolo3_loader_ratio",
        f"images/s of our loader over GluonCV's, YOLOv3 at {SIZE} px, {len(dataset)} {photos}, {len(classes)} classes",
        ratios(seconds["GluonCV"], seconds["ours"]),
        8,
        details={f"{name}, images/s": len(dataset) / float(np.median(each)) for name, each in seconds.items()},
    )
