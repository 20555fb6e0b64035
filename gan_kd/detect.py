"""The command that detects: pictures with boxes, and every box in COCO's result format."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from gan_kd.data import coco, images
from gan_kd.data.files import SUFFIXES, find_images, open_images, without_objects
from gan_kd.errors import RunError, UsageError

if TYPE_CHECKING:
    from gan_kd.models.ssd import Detector

RESULTS, IMAGES = "detections.json", "images.json"
_LEFT_OUT = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # of 1 to 90: COCO's 80 categories have the other numbers
_FRAMES_PER_S = 25.0  # of a video that does not tell


def main(argv: Sequence[str]) -> int:
    """Detect what the arguments name; returns 0. UserError as `gan_kd.__main__` expects it."""
    arguments = _parser().parse_args(argv)
    # In the order of what is quickest to find wrong; MXNet takes seconds to load.
    if not arguments.params.is_file():
        raise UsageError(f"{arguments.params}: no such file; a run has runs/RECIPE/SEED/NETWORK/best.params")
    source = arguments.source
    files = find_images([source])
    if files[0].parent.resolve() == arguments.out.resolve():
        raise UsageError(f"--out {arguments.out} is the folder of the input, which must not be overwritten")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {arguments.out} cannot be made ({error.strerror})") from error
    if not os.access(arguments.out, os.W_OK):
        raise RunError(f"--out {arguments.out}: no file may be written there; choose another folder")

    from gan_kd import compat

    compat.set_default_threads(arguments.num_workers)
    from gan_kd.engine.contexts import open_contexts
    from gan_kd.engine.saved import load_detector

    contexts = open_contexts([f"gpu:{number}" for number in arguments.gpus.split(",")] if arguments.gpus else ["cpu:0"])
    detector = load_detector(arguments.params)[0]
    detector.collect_params().reset_ctx(contexts)
    detector.hybridize(static_alloc=True)
    is_video = source.is_file() and source.suffix.lower() not in SUFFIXES and not cv2.haveImageReader(str(source))
    (_detect_video if is_video else _detect_images)(arguments, detector, contexts, files)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gan_kd detect",
        description="Detect objects: pictures with boxes, and all boxes in COCO's result format.",
    )
    parser.add_argument("source", type=Path, metavar="IMAGE|FOLDER|VIDEO", help="what to look at")
    parser.add_argument("--params", type=Path, required=True, metavar="FILE", help="a run's best.params")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where pictures and JSON go")
    parser.add_argument("--threshold", type=_score, default=0.3, help="least score of a detection (%(default)s)")
    parser.add_argument("--batch-size", type=_count, default=8, metavar="N", help="images a forward pass (%(default)s)")
    parser.add_argument("--gpus", metavar="0,1", help="GPUs to use (default: the CPU)")
    parser.add_argument(
        "-j", "--num-workers", type=int, default=0, metavar="N", help="processes that read images (%(default)s)"
    )
    return parser


def _score(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a score from 0 to 1")
    return value


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def _detect_images(
    arguments: argparse.Namespace, detector: Detector, contexts: Sequence[Any], files: Sequence[Path]
) -> None:
    from gan_kd.engine.evaluate import detect_all, detect_rows, in_image
    from gan_kd.pictures import draw

    classes, size, out = detector.head.classes, detector.extractor.size, arguments.out
    dataset, problems = open_images(files, classes)
    numbers = _numbers([record.image for record in dataset.records])
    written = Written(classes)

    def picture(index: int, found: np.ndarray) -> None:
        file = dataset.records[index].image
        name = file.name if file.suffix.lower() in SUFFIXES else f"{file.name}.png"  # else OpenCV may not write it
        _write_image(out / name, draw(images.read(file), found, classes))

    found_by_batch = detect_all(
        partial(detect_rows, detector), dataset, contexts, arguments.batch_size, size, arguments.num_workers
    )
    with ThreadPoolExecutor(max(1, arguments.num_workers)) as pool:
        drawn = []
        for index, rows in tqdm(found_by_batch, "detecting", len(dataset), unit="image", leave=False, disable=None):
            record = dataset.records[index]
            found = _above(in_image(rows, record, size, len(classes)), arguments.threshold)
            written.add({"id": numbers[index], "file_name": record.id}, record.width, record.height, found)
            drawn.append(pool.submit(picture, index, found))
        for picture_written in drawn:
            picture_written.result()
    written.save(out)
    print(f"{len(dataset)} images, {written}: {out / RESULTS}")
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise RunError(f"{len(problems)} of {len(files)} images could not be read; the others are done")


def _detect_video(
    arguments: argparse.Namespace, detector: Detector, contexts: Sequence[Any], files: Sequence[Path]
) -> None:
    from gan_kd.data.transforms import ValTransform
    from gan_kd.engine.contexts import split
    from gan_kd.engine.evaluate import detect_rows, in_image
    from gan_kd.pictures import draw

    classes, size, file = detector.head.classes, detector.extractor.size, files[0]
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # of what is no video it says much, and we say it once
    video = cv2.VideoCapture(str(file))
    transform, written = ValTransform(size), Written(classes)
    total = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))) or None
    writer: cv2.VideoWriter | None = None
    target = arguments.out / f"{file.stem}.mp4"
    with tqdm(total=total, desc="detecting", unit="frame", leave=False, disable=None) as bar:
        for batch in _batches(_frames(video), arguments.batch_size):
            pixels = np.stack([transform(frame)[0] for frame in batch])
            rows = [detect_rows(detector, part) for part in split(pixels, contexts) if len(part)]
            for frame, row in zip(batch, np.concatenate([part.asnumpy() for part in rows])):
                height, width = frame.shape[:2]
                record = without_objects(f"{file.name}, frame {bar.n}", file, width, height)
                found = _above(in_image(row, record, size, len(classes)), arguments.threshold)
                written.add({"id": bar.n + 1, "file_name": file.name, "frame": bar.n}, width, height, found)
                writer = writer or _writer(target, video, width, height)
                writer.write(np.ascontiguousarray(draw(frame, found, classes)[..., ::-1]))
                bar.update()
    video.release()
    if writer is None:
        raise UsageError(f"{file}: neither an image nor a video that OpenCV can read")
    writer.release()
    written.save(arguments.out)
    print(f"{len(written.images)} frames, {written}: {target} and {arguments.out / RESULTS}")


class Written:
    """What was found, for two files: COCO's list of results, and the images and categories that it refers to.

    The latter has the form of COCO's annotation files, so that `COCO(images.json).loadRes(detections.json)` reads both.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        of_coco = [number for number in range(1, 91) if number not in _LEFT_OUT]
        numbers = of_coco if tuple(classes) == coco.CLASSES else range(1, len(classes) + 1)
        self.categories = [{"id": number, "name": name} for number, name in zip(numbers, classes)]
        self.images: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []

    def add(self, image: dict[str, Any], width: int, height: int, found: np.ndarray) -> None:
        """An image and its detections (K, 6) in its pixels; the last pixel is included, as `COCOMetric` has it."""
        self.images.append({**image, "width": width, "height": height})
        for x0, y0, x1, y1, label, score in found.tolist():
            box = [round(value, 2) for value in (x0, y0, x1 - x0 + 1, y1 - y0 + 1)]
            category = self.categories[int(label)]["id"]
            self.results.append(
                {"image_id": image["id"], "category_id": category, "bbox": box, "score": round(score, 5)}
            )

    def save(self, folder: Path) -> None:
        """Writes both files; RunError where that fails."""
        lines = ",\n".join(map(json.dumps, self.results))
        about = {"images": self.images, "categories": self.categories, "annotations": []}
        try:
            (folder / RESULTS).write_text(f"[\n{lines}\n]\n")
            (folder / IMAGES).write_text(json.dumps(about, indent=1) + "\n")
        except OSError as error:
            raise RunError(f"{folder}: the results cannot be written ({error.strerror})") from error

    def __str__(self) -> str:
        return f"{len(self.results)} detections"


def _numbers(files: Sequence[Path]) -> list[int]:
    """The image_id of each: the number in its name, as COCO's images have it, or its place from 1."""
    stems = [file.stem for file in files]
    if all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems):
        return list(map(int, stems))
    return list(range(1, len(stems) + 1))


def _above(found: np.ndarray, threshold: float) -> np.ndarray:
    return found[found[:, 5] >= threshold]


def _write_image(path: Path, image: np.ndarray) -> None:
    try:
        written = cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]))
    except cv2.error:
        written = False
    if not written:
        raise RunError(f"{path} cannot be written: is the disk full?")


def _frames(video: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The frames as uint8 RGB."""
    while True:
        there, frame = video.read()
        if not there:
            return
        yield np.ascontiguousarray(frame[..., ::-1])


def _batches(frames: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    frames = iter(frames)
    while batch := list(islice(frames, size)):
        yield batch


def _writer(path: Path, video: cv2.VideoCapture, width: int, height: int) -> cv2.VideoWriter:
    frames_per_s = video.get(cv2.CAP_PROP_FPS)
    frames_per_s = frames_per_s if 0 < frames_per_s < 1000 else _FRAMES_PER_S
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frames_per_s, (width, height))
    if not writer.isOpened():
        raise RunError(f"{path} cannot be written: OpenCV cannot open a video there")
    return writer
