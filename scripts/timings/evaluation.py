"""Evaluation from image files to mAP: the loop of GluonCV's eval_ssd.py against ours, in MXNet, by ONNX and by int8.

Every measurement is a process of its own, one side after the other: GluonCV's loader forks, which is safe only
before OpenMP has run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gan_kd import compat  # noqa: F401  (before MXNet)
from gan_kd.system.timing import Result, in_turn, ratios

BACKBONE, SIZE, BATCH, WORKERS = "mobilenet1.0", 300, 32, 1
IMAGES = 192
CALIBRATION = 32  # images
_AIMS = {"ours": 1.5, "onnx": 1.5, "int8": 1.8}
NMS, TOPK, POST_NMS = 0.45, 400, 100
#: Added to the background's logit: random weights alone would give every anchor every class above the decoder's
#: threshold of 0.01, which no trained network does.
BACKGROUND = 8.0
REAL = Path(__file__).resolve().parents[3] / "shared/data/voc12-animals/VOC2012"


def run(rounds: int) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        root, split, drawn = test_set(Path(folder))
        measured: dict[str, list[dict[str, float]]] = {"gluoncv": [], **{side: [] for side in _AIMS}}
        for number in range(rounds):
            for side in list(measured)[:: -1 if number % 2 else 1]:
                measured[side].append(_in_process(side, root, split, IMAGES))

    forward = [one["float32 by int8, forward"] for one in measured["int8"]]
    return [
        *(_result(side, measured, drawn) for side in _AIMS),
        Result(
            key="int8_forward",
            what=f"forward pass and suppression of 8 images, float32 / int8 in MXNet, SSD{SIZE} {BACKBONE}",
            ratios=forward,
            aim=2.0,
            notes=[_threads()],
        ),
    ]


def _result(side: str, measured: dict[str, list[dict[str, float]]], drawn: bool) -> Result:
    def median(side: str, key: str) -> float:
        return float(np.median([one[key] for one in measured[side]]))

    total, what = median(side, "s"), "ours" if side == "ours" else f"ours by {side}"
    parts = {key: median(side, key) for key in ("loader alone, s", "network alone, s", "metric alone, s")}
    notes = [
        f"Each side in a process of its own. {_threads()} {WORKERS} loader worker with one thread, batches of {BATCH}; "
        "start of the workers and compilation count; imports, building the network and writing its form do not.",
    ]
    if side == "ours":
        notes += [
            "Ours takes the boxes that enter suppression out of all candidates before it makes rows of them; GluonCV "
            "makes a row of six of every anchor and class.",
            "By mx.profiler (batch of 16, one thread, a shared machine) convolution takes 86% of our forward pass and "
            "71% of GluonCV's, by the same kernels: were all else free, the passes would differ by 1.4. Of the rest "
            "BatchNorm is 8% and activations 3%; MXNet's fusion of them into the convolutions (backend MKLDNN) gained "
            "2% and is not used.",
        ]
    return Result(
        key="eval_ratio" if side == "ours" else f"eval_ratio_{side}",
        what=f"GluonCV's evaluation / {what}, seconds, {IMAGES} {'drawn' if drawn else 'voc12-animals'} images to "
        f"mAP, SSD{SIZE} {BACKBONE}, 20 classes, random weights",
        ratios=ratios(*([one["s"] for one in measured[name]] for name in ("gluoncv", side))),
        aim=_AIMS[side],
        details={
            "GluonCV, images/s": IMAGES / median("gluoncv", "s"),
            f"{what}, images/s": IMAGES / total,
            "GluonCV, s": median("gluoncv", "s"),
            f"{what}, s": total,
            **{f"{what}, {key}": value for key, value in parts.items()},
            f"{what}, hidden by overlap, s": sum(parts.values()) - total,
            "GluonCV, network alone, s": median("gluoncv", "network alone, s"),
            "candidates above 0.01, %": median("ours", "candidates above 0.01, %"),
        },
        notes=notes,
    )


def _threads() -> str:
    cores, threads = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS") or "half of the cores"
    return f"{cores} cores, OMP_NUM_THREADS {threads}."


def test_set(folder: Path, images: int = IMAGES) -> tuple[Path, str, bool]:
    """Folder in VOC's layout, its split, and whether it was drawn, into `folder`, as there are no photographs."""
    if REAL.is_dir():
        return REAL, "val", False
    from gan_kd.data.demo import draw

    draw(folder / "VOC2012", train=1, test=images, seed=0, size=336)
    return folder / "VOC2012", "test", True


def _in_process(side: str, root: Path, split: str, images: int) -> dict[str, float]:
    command = [sys.executable, "-m", "scripts.timings.evaluation", side, str(root), split, str(images)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    if done.returncode:
        raise RuntimeError(f"the evaluation by {side} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(side: str, root: Path, split: str, images: int) -> dict[str, float]:
    """Seconds of one evaluation (key s) and of its parts alone, and the mAP in percent."""
    net = _network()
    return _gluoncv(net, root, split, images) if side == "gluoncv" else _ours(side, net, root, split, images)


def _network() -> Any:
    import mxnet as mx

    from gan_kd.data.voc import CLASSES
    from gan_kd.detectors.ssd import zoo

    mx.random.seed(0)
    net = zoo.build(BACKBONE, SIZE, CLASSES)
    for predictor in net.class_predictors:
        bias = predictor.predictor.bias
        values = bias.data().asnumpy()
        values[:: len(CLASSES) + 1] += BACKGROUND
        bias.set_data(mx.nd.array(values))
    return net


def _gluoncv(net: Any, root: Path, split: str, images: int) -> dict[str, float]:
    """What eval_ssd.py calls, in its order."""
    import mxnet as mx
    from gluoncv.data import VOCDetection
    from gluoncv.data.batchify import Pad, Stack, Tuple
    from gluoncv.data.transforms.presets.ssd import SSDDefaultValTransform
    from gluoncv.utils.metrics.voc_detection import VOC07MApMetric

    classes = _classes(root)
    dataset_type = type("Dataset", (VOCDetection,), {"CLASSES": classes})
    dataset = dataset_type(root=str(root.parent), splits=[(2012, split)])
    dataset._items = dataset._items[:images]
    metric = VOC07MApMetric(iou_thresh=0.5, class_names=dataset.classes)
    context = [mx.cpu()]

    start = time.perf_counter()
    loader = mx.gluon.data.DataLoader(
        dataset.transform(SSDDefaultValTransform(SIZE, SIZE)),
        BATCH,
        False,
        batchify_fn=Tuple(Stack(), Pad(pad_val=-1)),
        last_batch="keep",
        num_workers=WORKERS,
    )
    net.set_nms(NMS, TOPK, POST_NMS)
    net.hybridize()
    for batch in loader:
        data, label = (mx.gluon.utils.split_and_load(part, context, even_split=False) for part in batch)
        boxes, ids, scores, truth = [], [], [], []
        for x, y in zip(data, label):
            found, score, box = net(x)
            ids.append(found)
            scores.append(score)
            boxes.append(mx.nd.clip(box, 0, batch[0].shape[2]))
            truth.append([y.slice_axis(axis=-1, begin=i, end=j) for i, j in ((0, 4), (4, 5), (5, 6))])
        metric.update(boxes, ids, scores, *(list(part) for part in zip(*truth)))
    map_ = metric.get()[1][-1]
    seconds = time.perf_counter() - start
    return {"s": seconds, "mAP, %": 100 * map_, "network alone, s": _network_alone(net, images)}


def _ours(side: str, net: Any, root: Path, split: str, images: int) -> dict[str, float]:
    import mxnet as mx

    from gan_kd.data.dataset import DetectionDataset, open_split
    from gan_kd.data.loader import Loader
    from gan_kd.data.pixels import ValTransform
    from gan_kd.data.sizes import Square
    from gan_kd.detectors.ssd.network import join
    from gan_kd.detectors.ssd.network import split as taken_apart
    from gan_kd.evaluation.counting import count
    from gan_kd.evaluation.evaluate import evaluate
    from gan_kd.evaluation.evaluate import measure as evaluate_by
    from gan_kd.recipe import Data, Eval

    data = Data(dataset="folder", root=str(root), val=[split], classes=list(_classes(root)))
    whole = open_split(data, "val")
    dataset = DetectionDataset(whole.classes, whole.records[:images])
    detector = join(*taken_apart(net), None, NMS, TOPK, POST_NMS)
    settings, more = Eval(batch_size=BATCH), {}
    if side != "ours":
        student, form = _forms(side, detector, dataset)
        if side == "int8":
            seconds_of = in_turn({"float32": student.run, "int8": form.run}, rounds=5)
            more = {"float32 by int8, forward": float(np.median(ratios(*seconds_of.values())))}

    start = time.perf_counter()
    if side == "ours":
        result = evaluate(detector, dataset, [mx.cpu()], settings, WORKERS, progress=False)
    else:
        result = evaluate_by(form.detect, dataset, [mx.cpu()], settings, form.sizes, WORKERS, progress=False)
    seconds = time.perf_counter() - start

    start = time.perf_counter()
    with Loader(dataset, ValTransform(Square(SIZE)), BATCH, WORKERS, seed=0, train=False) as loader:
        for _ in loader.epoch(0):
            pass
    loading = time.perf_counter() - start
    start = time.perf_counter()
    count(dataset, result.detections, settings)
    counting = time.perf_counter() - start
    logits = detector.head(*detector.extractor(_noise(min(BATCH, images))))[0]
    return {
        "s": seconds,
        "mAP, %": result.map,
        "loader alone, s": loading,
        "network alone, s": _network_alone(detector if side == "ours" else form.detect, images),
        "metric alone, s": counting,
        **more,
        "candidates above 0.01, %": float(100 * (mx.nd.softmax(logits)[:, :, 1:] > 0.01).mean().asscalar()),
    }


def _forms(side: str, detector: Any, dataset: Any) -> tuple[Any, Any]:
    """The detector as MXNet's symbol and in the form of a side; the files are gone when it returns."""
    from gan_kd.export import forms, sources

    pixels = sources.pixels(dataset, CALIBRATION, detector.sizes)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        student = forms.as_symbol(BACKBONE, detector, folder / "float32", pixels)
        if side == "int8":
            return student, forms.as_int8(student, detector, folder / "int8", pixels, pixels)
        return student, forms.as_onnx(student, detector, folder / "plain.onnx", folder / "nms.onnx", pixels)[0]


def _network_alone(net: Any, images: int) -> float:
    """Seconds for so many images of noise, from a few batches, network and suppression."""
    x = _noise(min(BATCH, images))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for output in net(x):
            output.wait_to_read()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) * images / len(x)


def _noise(images: int) -> Any:
    import mxnet as mx

    return mx.nd.array(np.random.default_rng(0).standard_normal((images, 3, SIZE, SIZE), dtype=np.float32))


def _classes(root: Path) -> tuple[str, ...]:
    """Twenty names: VOC's, or those of the drawn set filled up, so that the network is the same."""
    from gan_kd.data.voc import CLASSES

    file = root / "classes.txt"
    if not file.is_file():
        return CLASSES
    drawn = file.read_text().split()
    return (*drawn, *CLASSES[len(drawn) :])


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
