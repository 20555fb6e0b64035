"""Evaluation: detections of every image of a split, their AP, and what a network costs."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable

import mxnet as mx
import numpy as np
from mxnet import nd
from mxnet.ndarray import NDArray
from tqdm import tqdm

from gan_kd.data.dataset import DetectionDataset, Record, open_split
from gan_kd.data.loader import Loader, worker_policy
from gan_kd.data.pixels import ValTransform
from gan_kd.data.sizes import Sizes
from gan_kd.data.workers import WorkerPolicy
from gan_kd.detectors.base import Detector
from gan_kd.detectors.saved import load_detector, require_classes, teacher_of
from gan_kd.errors import Diverged
from gan_kd.evaluation.also import measures
from gan_kd.evaluation.attention import attention_maps
from gan_kd.evaluation.counting import count
from gan_kd.evaluation.metrics import checked_detections
from gan_kd.gluon import macs as cost
from gan_kd.gluon.contexts import split
from gan_kd.recipe import Eval, Recipe, recipe_hash
from gan_kd.system.console import no_bar
from gan_kd.system.machine import machine
from gan_kd.system.memory import release_memory
from gan_kd.system.version import commit

SPEED_BATCH = 8  # images a pass for images_per_s
SAMPLES = 12  # images of which eval.json keeps the detections
EVERY = 3  # of these, one in three with its attention maps
# Images (N, 3, H, W), and extents (N, 2) where they are padded -> (N, K, 6) x0, y0, x1, y1, class, score
Detect = Callable[..., NDArray]


@dataclass(frozen=True)
class Evaluation:
    """AP of a detector on a split, in percent, and its detections.

    map, ap, summary: see `gan_kd.evaluation.metrics.Result`. detections: for each record of the split (K, 6) float32
    x0, y0, x1, y1, class, score, in order of falling score, in pixels of the image as it is on disk.
    """

    map: float
    ap: dict[str, float]
    summary: dict[str, float]
    detections: list[np.ndarray]

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.detections)


def evaluate(
    detector: Detector,
    dataset: DetectionDataset,
    contexts: Sequence[mx.Context],
    eval_config: Eval,
    num_workers: int,
    progress: bool = True,
    policy: WorkerPolicy = WorkerPolicy(),  # noqa: B008  (immutable)
) -> Evaluation:
    """Run a detector, whose parameters are on `contexts`, over a split and count its AP.

    progress: show a bar. policy: for loader workers that fail. The detector is compiled for this and not after it;
    whoever trains its parts compiles them again. Diverged where a weight or a detection is nan or infinite.
    """
    check_finite(detector)
    detector.hybridize(static_alloc=True)
    detect = partial(detect_rows, detector)
    result = measure(detect, dataset, contexts, eval_config, detector.sizes, num_workers, progress, policy)
    detector.hybridize(False)  # what it was compiled to would keep its memory while training goes on
    release_memory()
    return result


def measure(
    detect: Detect,
    dataset: DetectionDataset,
    contexts: Sequence[mx.Context],
    eval_config: Eval,
    sizes: Sizes,
    num_workers: int,
    progress: bool = True,
    policy: WorkerPolicy = WorkerPolicy(),  # noqa: B008  (immutable)
) -> Evaluation:
    """The same for anything that detects: `detect` as `detect_rows`, on the context of its images. sizes: of these."""
    found = []
    hidden = no_bar() if progress else True
    with tqdm(total=len(dataset), unit="image", desc="evaluating", disable=hidden, leave=False) as bar:
        for index, rows in detect_all(detect, dataset, contexts, eval_config.batch_size, sizes, num_workers, policy):
            record = dataset.records[index]
            found.append(in_image(rows, record, sizes, len(dataset.classes)))
            bar.update()
    result = count(dataset, found, eval_config)
    return Evaluation(result.map, result.ap, result.summary, found)


def check_finite(detector: Detector) -> None:
    """Diverged where a weight is nan or infinite: with scores of nan nothing is detected, and mAP is 0."""
    for name, parameter in detector.weights().items():
        if not np.isfinite(parameter.data(parameter.list_ctx()[0]).asnumpy()).all():
            raise Diverged(f"the network's '{name}' holds nan or infinite values: its training diverged")


def detect_all(
    detect: Detect,
    dataset: DetectionDataset,
    contexts: Sequence[mx.Context],
    batch_size: int,
    sizes: Sizes,
    num_workers: int,
    policy: WorkerPolicy = WorkerPolicy(),  # noqa: B008  (immutable)
) -> Iterator[tuple[int, np.ndarray]]:
    """(index, (K, 6) x0, y0, x1, y1, class, score in input px) of each record in order; padding has class -1.

    MXNet computes in the background: a batch is handed over before the one before it is waited for and read,
    so that devices and the reading process do not wait for each other.
    """

    def read(outputs: list[NDArray], indices: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        return zip(indices.tolist(), np.concatenate([output.asnumpy() for output in outputs]))

    pending: tuple[list[NDArray], np.ndarray] | None = None
    with Loader(dataset, ValTransform(sizes), batch_size, num_workers, 0, train=False, policy=policy) as loader:
        for batch in loader.epoch(0):
            inputs = [split(array, contexts) for array in (batch.images, batch.extents) if array is not None]
            outputs = [detect(*part) for part in zip(*inputs) if len(part[0])]
            if pending is not None:
                yield from read(*pending)
            pending = outputs, batch.indices
    if pending is not None:
        yield from read(*pending)


def detect_rows(detector: Detector, images: NDArray, extents: NDArray | None = None) -> NDArray:
    """(N, K, 6) x0, y0, x1, y1, class, score of images on one device: one array to copy, not three."""
    return as_rows(*(detector(images, extents) if detector.takes_extents else detector(images)))


def as_rows(ids: NDArray, scores: NDArray, boxes: NDArray) -> NDArray:
    """What a detector gives as one array (N, K, 6)."""
    return nd.concat(boxes, ids, scores, dim=2)


def in_image(rows: np.ndarray, record: Record, sizes: Sizes, num_classes: int) -> np.ndarray:
    """Detections (K, 6) in input px -> those in use, in pixels of the image, cut off at its last ones.

    AP is counted there, as the devkit does; GluonCV's script counts in input px, where the one pixel that VOC
    adds to each side is of another size.
    """
    found = checked_detections(rows, num_classes, f"image {record.id}")
    sides = np.tile([record.width, record.height], 2)
    factors = np.tile(ValTransform(sizes).factors(record.width, record.height), 2)
    found[:, :4] = np.clip(found[:, :4] * factors, 0, sides - 1)
    return found.astype(np.float32)


def further(dataset: DetectionDataset, result: Evaluation, eval_config: Eval) -> dict[str, float | None]:
    """Measures in percent of an evaluation's detections beside the recipe's metric, None for nan.

    See `gan_kd.evaluation.also.measures`. With the metric coco "ap" alone, COCO's own, which is the mAP.
    """
    found = {"ap": result.map} if eval_config.metric == "coco" else measures(dataset, result.detections)
    return {name: _number(value) for name, value in found.items()}


def measure_speed(detector: Detector, batch_size: int, context: mx.Context | None = None, passes: int = 7) -> float:
    """Images per second of forward pass, decoding and suppression on one device, median of several passes.

    The images are noise; loading and scaling are not counted. context: where the parameters are (None: the
    CPU).
    """
    size, context = detector.sizes.typical, context or mx.cpu()
    images = mx.nd.array(np.random.default_rng(0).standard_normal((batch_size, 3, *size)), ctx=context)
    extents = mx.nd.array([size] * batch_size, ctx=context)
    detector.hybridize(static_alloc=True)
    return images_per_s(lambda: detect_rows(detector, images, extents), batch_size, passes)


def images_per_s(detect: Callable[[], NDArray], batch_size: int, passes: int = 7) -> float:
    """Images per second of what detects in a batch, median of several passes."""

    def seconds() -> float:
        start = time.perf_counter()
        detect().asnumpy()
        return time.perf_counter() - start

    seconds()  # the first pass compiles and allocates
    return batch_size / statistics.median(seconds() for _ in range(passes))


def evaluate_params(
    recipe: Recipe,
    params_path: Path,
    contexts: Sequence[mx.Context],
    dataset: DetectionDataset | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure the network in a params file on the recipe's val split: what eval.json holds, ready for JSON.

    dataset: the val split, where it is open already. AP in percent, None for a class without ground truth;
    boxes in pixels of the image. UsageError for a file that does not hold a network of the recipe, Diverged
    where its training did.
    """
    detector, meta = load_detector(params_path, recipe)
    if dataset is None:
        dataset = open_split(recipe.data, "val")
    require_classes(params_path, meta, dataset.classes)
    parameters, macs = cost.count(detector, (1, 3, *detector.sizes.typical))
    detector.collect_params().reset_ctx(list(contexts))
    workers, policy = recipe.train.num_workers, worker_policy(recipe.train)
    result = evaluate(detector, dataset, contexts, recipe.eval, workers, progress, policy)
    return {
        **described(recipe, params_path, meta, dataset, result, contexts),
        "parameters": parameters,
        "macs": macs,
        "images_per_s": measure_speed(detector, SPEED_BATCH, contexts[0]),
        "speed_batch": SPEED_BATCH,
        "samples": samples(detector, dataset, result.detections, contexts[0]),
    }


def described(
    recipe: Recipe,
    path: Path,
    meta: Mapping[str, Any],
    dataset: DetectionDataset,
    result: Evaluation,
    contexts: Sequence[mx.Context],
) -> dict[str, Any]:
    """What eval.json holds of a network in a file, of which `meta` is known, beside its cost and its samples."""
    return {
        "network": meta["network"],
        "params_file": str(path),
        "sha256": meta["sha256"],
        "metric": recipe.eval.metric,
        "map": _number(result.map),
        "ap": {name: _number(value) for name, value in result.ap.items()},
        "summary": {name: _number(value) for name, value in result.summary.items()},
        "also": further(dataset, result, recipe.eval),
        "images": result.images,
        "teacher": teacher_of(meta, recipe),
        "distillers": meta.get("distillers"),
        "recipe": recipe.name,
        "recipe_hash": recipe_hash(recipe),
        "commit": commit(),
        "seed": meta.get("seed", recipe.train.seed),
        "machine": machine(),
        "contexts": [str(context) for context in contexts],
    }


def samples(
    detector: Detector,
    dataset: DetectionDataset,
    detections: Sequence[np.ndarray],
    context: mx.Context,
    number: int = SAMPLES,
    every: int = EVERY,
) -> list[dict[str, Any]]:
    """Images to look at, spread evenly over the split: ground truth, detections, and one in `every` with attention."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, number).round().astype(int)).tolist() if len(dataset) else []
    found = []
    for index in chosen:
        record = dataset.records[index]
        truth = np.column_stack((record.boxes, record.labels, record.difficult))
        found.append(
            {
                "id": record.id,
                "image": str(record.image),
                "width": record.width,
                "height": record.height,
                "gt": truth.tolist(),
                "detections": detections[index].astype(np.float64).round(3).tolist(),
            }
        )
    for sample, maps in zip(found[::every], attention_maps(detector, dataset, chosen[::every], context)):
        sample["attention"] = maps
    return found


def _number(value: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(value) else value
