"""Images a second that one process makes ready for training: ours against GluonCV's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
from gluoncv.data import VOCDetection
from gluoncv.data.batchify import Stack, Tuple
from gluoncv.data.transforms.presets.ssd import SSDDefaultTrainTransform

from gan_kd.data import demo, images, voc
from gan_kd.data.dataset import DetectionDataset
from gan_kd.data.loader import Loader
from gan_kd.data.pixels import Look, render
from gan_kd.data.record import Labels
from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.network import split
from gan_kd.detectors.ssd.transform import SSDTrainTransform
from gan_kd.system.timing import Result, in_turn, ratios

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT.parent / "shared/data/voc12-animals/VOC2012"
IMAGES = 64
BATCH = 16
DRAWN_SIZE = 336  # px, the long side of PHOTOS'


def run(rounds: int) -> list[Result]:
    """Both sizes with the threads of this process, and 300 px once more where MXNet has two."""
    return [*measure(rounds), _with_two_threads(rounds)]


def _with_two_threads(rounds: int) -> Result:
    command = [sys.executable, "-m", "scripts.timings.loader", str(rounds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"the loader with two threads failed:\n{done.stderr}")
    result = Result(**json.loads(done.stdout.splitlines()[-1]))
    return replace(result, key=f"{result.key}_2_threads")


def measure(rounds: int, sizes: Sequence[int] = (300, 512)) -> list[Result]:
    """loader_ratio_300 and loader_ratio_512: one process each, in turn, on the same files."""
    with tempfile.TemporaryDirectory() as folder, one_thread():
        root, classes = PHOTOS, list(voc.CLASSES)
        if not root.is_dir():
            root, classes = Path(folder) / "drawn", list(demo.CLASSES)
            demo.draw(root, IMAGES, 0, seed=0, size=DRAWN_SIZE)
        networks = {300: ("vgg16_atrous", 300, 10), 512: ("mobilenet1.0", 512, 6)}
        return [_compare(f"loader_ratio_{size}", root, classes, *networks[size], rounds) for size in sizes]


def _compare(key: str, root: Path, classes: Sequence[str], backbone: str, size: int, aim: float, rounds: int) -> Result:
    extractor, head = split(zoo.build(backbone, size, classes))
    anchors = head.anchors(extractor.sizes)
    dataset, transform = dataset_of(root, classes), SSDTrainTransform(size, anchors)
    rival = SSDDefaultTrainTransform(size, size, mx.nd.array(anchors[None]))
    files = [np.fromfile(record.image, np.uint8) for record in dataset.records]
    reductions = [_draw(dataset, transform, 0, index)[0].reduction for index in range(len(dataset))]
    loader = Loader(dataset, transform, BATCH, num_workers=0, seed=0, train=True)
    epochs = iter(range(rounds + 1))
    seconds = in_turn(
        {
            "ours": lambda: [None for _ in loader.epoch(next(epochs))],
            "GluonCV": partial(read_all, gluoncv(root, classes, rival, Tuple(Stack(), Stack(), Stack()))),
            "decode": lambda: [images.decode(file) for file in files],
            "decode reduced": lambda: [images.decode(*each) for each in zip(files, reductions)],
        },
        rounds,
    )
    steps = _steps(dataset, transform, rounds)
    speeds = {name: len(dataset) / float(np.median(each)) for name, each in seconds.items()}
    larger = sum(3 * record.width * record.height for record in dataset.records) / sum(map(len, files))
    share = {name: each / sum(steps.values()) for name, each in steps.items()}
    photos = "VOC2012 photos" if root == PHOTOS else "drawn images"
    return Result(
        key,
        f"images/s of our loader over GluonCV's, SSD{size} {backbone}, {len(dataset)} {photos} of {DRAWN_SIZE} px",
        ratios(seconds["GluonCV"], seconds["ours"]),
        aim,
        details={
            "ours, images/s": speeds["ours"],
            "GluonCV, images/s": speeds["GluonCV"],
            "JPEG decoding alone, images/s": speeds["decode"],
            "JPEG decoding alone at the scales that ours uses, images/s": speeds["decode reduced"],
            **{f"ours, {name}, ms an image": each for name, each in steps.items()},
        },
        notes=[
            f"One process, OpenCV without threads, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')} for "
            "what MXNet calculates. Ours writes into the batch's memory: there is no step that copies.",
            f"{np.mean(np.array(reductions) > 1):.0%} of the JPEGs are decoded at a half or less; decoding is "
            f"{share['decode']:.0%} of our time and its floor.",
            f"A packed cache of the files would save less than the {steps['read']:.2f} ms of opening and reading one, "
            f"{share['read']:.0%} of our time, where the system has them in memory; one of decoded pixels at most "
            f"{share['read'] + share['decode']:.0%}, for {larger:.0f} times the bytes. Neither is built.",
        ],
    )


def dataset_of(root: Path, classes: Sequence[str]) -> DetectionDataset:
    """The first images of a folder in VOC's layout."""
    labels, files = Labels(classes, report=False), voc.VOCSplit(root, "train")
    readings = [files.read(item, labels) for item in files.items[:IMAGES]]
    return DetectionDataset(classes, [reading.record for reading in readings if reading.record])


def gluoncv(root: Path, classes: Sequence[str], transform: object, batchify: Tuple) -> mx.gluon.data.DataLoader:
    """The same images as in GluonCV's training scripts, in this process."""
    names = type("Named", (VOCDetection,), {"CLASSES": tuple(classes)})
    dataset = names(root=str(root.parent), splits=[(root.name, "train")]).take(IMAGES).transform(transform)
    return mx.gluon.data.DataLoader(dataset, BATCH, True, batchify_fn=batchify, last_batch="rollover", num_workers=0)


def read_all(loader: mx.gluon.data.DataLoader) -> None:
    """An epoch of it."""
    for batch in loader:
        for array in batch:
            array.wait_to_read()


def _draw(dataset: DetectionDataset, transform: SSDTrainTransform, epoch: int, index: int) -> tuple[Look, np.ndarray]:
    record, rng = dataset.records[index], np.random.default_rng([0, epoch, index + 1])
    return transform.draw(dataset.label(index), record.width, record.height, rng, images.reducible(record.image))


def _steps(dataset: DetectionDataset, transform: SSDTrainTransform, epochs: int) -> dict[str, float]:
    """Milliseconds of each step of ours an image, without the loader around them; medians of the epochs."""
    pixels = np.empty((3, transform.sizes.side, transform.sizes.side), np.float32)
    classes, offsets = transform.targets(np.zeros((0, 4)), np.zeros(0))
    names = ("crop search and other draws", "read", "decode", "pixels", "targets")
    seconds = np.zeros((epochs, len(names)))
    for epoch in range(epochs):
        for index, record in enumerate(dataset.records):
            times = [time.perf_counter()]
            look, label = _draw(dataset, transform, epoch, index)
            times.append(time.perf_counter())
            data = np.fromfile(record.image, np.uint8)
            times.append(time.perf_counter())
            image = images.decode(data, look.reduction)
            times.append(time.perf_counter())
            assert image is not None  # each was decoded before
            render(image, look, pixels)
            times.append(time.perf_counter())
            transform.targets.write(label[:, :4], label[:, 4], classes, offsets)
            times.append(time.perf_counter())
            seconds[epoch] += np.diff(times)
    return dict(zip(names, (1000 / len(dataset) * np.median(seconds, axis=0)).tolist()))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV without threads."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


if __name__ == "__main__":
    print(json.dumps(asdict(measure(int(sys.argv[1]), [300])[0])))
