"""Detection in images and videos."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import mxnet as mx
import numpy as np
from tqdm import tqdm

from gan_kd.data import images
from gan_kd.data.files import find_images, open_images, without_objects
from gan_kd.data.pixels import ValTransform
from gan_kd.data.sizes import Sizes
from gan_kd.detection.pictures import draw
from gan_kd.detection.results import RESULTS, Results
from gan_kd.detectors.saved import load_detector
from gan_kd.errors import RunError, UsageError
from gan_kd.evaluation.evaluate import Detect, detect_all, detect_rows, in_image
from gan_kd.export.files import is_export
from gan_kd.export.load import load_exported
from gan_kd.gluon.contexts import open_contexts, split
from gan_kd.system.console import no_bar, show, tell
from gan_kd.system.paths import library_name

_FRAMES_PER_S = 25.0  # of a video that does not tell


def detect(
    params: Path,
    source: Path,
    out: Path,
    threshold: float = 0.3,
    batch_size: int = 8,
    contexts: Sequence[str] = ("cpu:0",),
    num_workers: int = 0,
) -> str:
    """Detect in an image, each image of a folder, or a video; returns what was done, in a line.

    Into `out` go the pictures, under their names (a video as .mp4), and the boxes scored `threshold` or more, as of
    `Results`. num_workers: processes that read images; a video is read by this one.

    UsageError for wrong input. RunError where some images cannot be read, when the others are done, or nothing can be
    written.
    """
    files = find_images([source])
    network = _network(params, open_contexts(contexts))
    _prepare(out, files[0].parent)
    if source.is_file() and source.suffix.lower() not in images.SUFFIXES and not images.readable(source):
        try:
            return _in_video(network, source, out, threshold, batch_size)
        finally:
            _half(out).unlink(missing_ok=True)
    return _in_images(network, files, out, threshold, batch_size, num_workers)


class _Network(NamedTuple):
    """What detects, the names of its classes, the sizes of its input, and the devices that it runs on."""

    detect: Detect
    classes: Sequence[str]
    sizes: Sizes
    contexts: Sequence[mx.Context]


def _network(file: Path, contexts: Sequence[mx.Context]) -> _Network:
    """The network of a params file, or of an export, which runs on the CPU."""
    if is_export(file):
        exported = load_exported(file)
        return _Network(exported.detect, exported.about["classes"], exported.sizes, [mx.cpu()])
    detector = load_detector(file)[0]
    detector.collect_params().reset_ctx(list(contexts))
    detector.hybridize(static_alloc=True)
    return _Network(partial(detect_rows, detector), detector.classes, detector.sizes, contexts)


def _prepare(out: Path, source: Path) -> None:
    if source.resolve() == out.resolve():
        raise UsageError(f"--out {out} is the folder of the input, which would be overwritten; name another")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {out} cannot be made ({error.strerror}); name another") from error
    if not os.access(out, os.W_OK):
        raise RunError(f"--out {out}: no file may be written there; name another")


def _in_images(
    network: _Network,
    files: Sequence[Path],
    out: Path,
    threshold: float,
    batch_size: int,
    num_workers: int,
) -> str:
    run, classes, sizes, contexts = network
    dataset, problems = open_images(files, classes)
    results = Results(classes)
    numbers = _numbers([record.image for record in dataset.records])
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        drawn = []
        found_in = detect_all(run, dataset, contexts, batch_size, sizes, num_workers)
        for index, rows in tqdm(found_in, "detecting", len(dataset), unit="image", leave=False, disable=no_bar()):
            record = dataset.records[index]
            found = _above(in_image(rows, record, sizes, len(classes)), threshold)
            results.add({"id": numbers[index], "file_name": record.id}, record.width, record.height, found)
            drawn.append(pool.submit(_draw, record.image, out, found, classes))
        for picture in drawn:
            picture.result()
    results.save(out)
    done = f"{len(dataset)} images, {len(results)} detections: {out / RESULTS}"
    if problems:
        show(done)
        for problem in problems:
            tell(str(problem))
        raise RunError(f"{len(problems)} of {len(files)} images could not be read; the others are done")
    return done


def _in_video(network: _Network, file: Path, out: Path, threshold: float, batch_size: int) -> str:
    run, classes, sizes, contexts = network
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # it says much of what is no video; we say it once
    with library_name(file) as name:
        video = cv2.VideoCapture(name)
    transform, results, target = ValTransform(sizes), Results(classes), out / f"{file.stem}.mp4"
    writer: cv2.VideoWriter | None = None
    total = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))) or None
    with tqdm(total=total, desc="detecting", unit="frame", leave=False, disable=no_bar()) as bar:
        for batch in _batches(_frames(video), batch_size):
            pixels = np.stack([transform(frame)[0] for frame in batch])
            extents = sizes.extents(np.array([frame.shape[:2] for frame in batch])).astype(np.float32)
            inputs = zip(split(pixels, contexts), split(extents, contexts))
            parts = [run(*part) for part in inputs if len(part[0])]
            for frame, rows in zip(batch, np.concatenate([part.asnumpy() for part in parts])):
                height, width = frame.shape[:2]
                number = len(results.images)
                record = without_objects(f"{file.name}, frame {number}", file, width, height)
                found = _above(in_image(rows, record, sizes, len(classes)), threshold)
                results.add({"id": number + 1, "file_name": file.name, "frame": number}, width, height, found)
                writer = writer or _writer(_half(out), video, width, height)
                writer.write(np.ascontiguousarray(draw(frame, found, classes)[..., ::-1]))
                bar.update()
    video.release()
    if writer is None:
        raise UsageError(f"{file}: neither an image nor a video that OpenCV can read")
    writer.release()
    os.replace(_half(out), target)
    results.save(out)
    return f"{len(results.images)} frames, {len(results)} detections: {target} and {out / RESULTS}"


def _numbers(files: Sequence[Path]) -> list[int]:
    """The image_id of each: the number in its name, as COCO's images have it, or its place from 1."""
    stems = [file.stem for file in files]
    if all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems):
        return list(map(int, stems))
    return list(range(1, len(stems) + 1))


def _above(found: np.ndarray, threshold: float) -> np.ndarray:
    return found[found[:, 5] >= threshold]


def _draw(file: Path, out: Path, found: np.ndarray, classes: Sequence[str]) -> None:
    """The image with its detections under its name, with .png behind it where OpenCV may not write its format."""
    writable = file.suffix.lower() in images.SUFFIXES and cv2.haveImageWriter(f"a{file.suffix.lower()}")
    path = out / (file.name if writable else f"{file.name}.png")
    pixels = np.ascontiguousarray(draw(images.read(file), found, classes)[..., ::-1])
    try:
        path.write_bytes(cv2.imencode(path.suffix.lower(), pixels)[1].tobytes())
    except (OSError, cv2.error) as error:
        reason = getattr(error, "strerror", None) or "its format does not hold images of that size"
        raise RunError(f"{path} cannot be written: {reason}") from error


def _frames(video: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The frames as uint8 RGB (H, W, 3)."""
    while True:
        there, frame = video.read()
        if not there:
            return
        yield np.ascontiguousarray(frame[..., ::-1])


def _batches(frames: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    frames = iter(frames)
    while batch := list(islice(frames, size)):
        yield batch


def _half(out: Path) -> Path:
    """The video while it is written: OpenCV wants its suffix, and takes names for UTF-8."""
    return out / f".{os.getpid()}.mp4"


def _writer(path: Path, video: cv2.VideoCapture, width: int, height: int) -> cv2.VideoWriter:
    frames_per_s = video.get(cv2.CAP_PROP_FPS)
    if not 0 < frames_per_s < 1000:
        frames_per_s = _FRAMES_PER_S
    with library_name(path.parent) as folder:
        writer = cv2.VideoWriter(
            f"{folder}/{path.name}", cv2.VideoWriter.fourcc(*"mp4v"), frames_per_s, (width, height)
        )
    if not writer.isOpened():
        raise RunError(f"{path} cannot be written: OpenCV cannot open a video there")
    return writer
