"""An SSD's training step and forward pass against GluonCV's training script and against PyTorch.

Same network, same weights, same batch, SGD with momentum. Ours is the step of a stage without distillers. PyTorch
runs in a process and an environment of its own (GluonCV cannot be imported beside PyTorch 2), one works while the other
waits; it is measured where that environment is.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import mxnet as mx
import numpy as np
from gluoncv.loss import SSDMultiBoxLoss
from gluoncv.model_zoo.ssd import SSD
from mxnet import autograd, gluon, nd

from gan_kd.data.batch import TrainBatch
from gan_kd.detectors.base import Detector
from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.loss import SSDLoss
from gan_kd.detectors.ssd.network import join, split
from gan_kd.gluon.optim import Optimisation
from gan_kd.recipe import Optimizer, Schedule
from gan_kd.system.timing import Result, in_turn, ratios
from gan_kd.training.networks import Networks
from gan_kd.training.step import Step
from scripts.timings.step import CLASSES, CPU, HERE, random_batch

SGD = Optimizer("sgd", 1e-3, momentum=0.9, wd=5e-4)
ROOT = Path(__file__).resolve().parents[2]
TORCH_PYTHON = ROOT / ".venv-torch/bin/python"
NO_TORCH = (
    "PyTorch is not there: python3 -m venv .venv-torch && "
    ".venv-torch/bin/pip install -r scripts/requirements-benchmark.txt"
)


def run(rounds: int) -> list[Result]:
    """ours_over_gluoncv_step and ours_over_torch_step for SSD512 MobileNet1.0, the same with _vgg16_300 for VGG16."""
    return [*measure(rounds, "mobilenet1.0", 512), *measure(rounds, "vgg16_atrous", 300, suffix="_vgg16_300")]


def measure(rounds: int, backbone: str, size: int, batch: int = 4, suffix: str = "") -> list[Result]:
    """Rivals' seconds by ours for one network; the forward passes are in the details."""
    steps, forwards = _seconds(rounds, backbone, size, batch)
    layouts = [name for name in steps if name.startswith("PyTorch")]
    torch = min(layouts, key=lambda name: float(np.median(steps[name])), default="")
    kinds = {"step": steps, "forward": forwards}
    what = f"training step by ours: SSD{size} {backbone}, batch {batch}, float32."
    note = f"OpenMP threads of each process: {threads()}."
    return [
        Result(
            f"ours_over_gluoncv_step{suffix}",
            f"GluonCV's {what}",
            ratios(steps["GluonCV"], steps["ours"]),
            1.0,
            details={
                **{
                    f"{kind}, {name}, s": float(np.median(each)) for kind in kinds for name, each in kinds[kind].items()
                },
                "forward with NMS, GluonCV by ours": _median(forwards, "GluonCV with NMS", "ours with NMS"),
            },
            notes=[note],
        ),
        Result(
            f"ours_over_torch_step{suffix}",
            f"PyTorch's, in the faster of its two layouts, {what}",
            ratios(steps[torch], steps["ours"]) if torch else [],
            1.1,
            details={
                f"{kind}, {name} by ours": _median(kinds[kind], name, "ours") for kind in kinds for name in layouts
            },
            notes=[note, f"Divided: {torch}."] if torch else [NO_TORCH],
        ),
    ]


def _seconds(
    rounds: int, backbone: str, size: int, batch: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Of the training steps and of the forward passes, by name, round by round."""
    detector = join(*split(zoo.build(backbone, size, CLASSES)))
    samples = random_batch(batch, size, len(detector.head.anchors(detector.extractor.sizes)))
    steps: dict[str, Callable[[], object]] = {
        "ours": our_step(copied(detector, backbone, size), samples),
        "GluonCV": script_step(zoo_twin(detector, backbone, size), samples),
    }
    forwards: dict[str, Callable[[], object]] = {
        "ours": our_forward(copied(detector, backbone, size), samples),
        "ours with NMS": detections(copied(detector, backbone, size), samples),
        "GluonCV with NMS": detections(zoo_twin(detector, backbone, size), samples),
    }
    with ExitStack() as stack:
        for layout in ("contiguous", "channels_last") if TORCH_PYTHON.exists() else ():
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            ask = stack.enter_context(torch_process(detector, samples, layout, Path(folder)))
            steps[f"PyTorch ({layout})"] = lambda ask=ask: ask("train")  # type: ignore[misc]
            forwards[f"PyTorch ({layout})"] = lambda ask=ask: ask("forward")  # type: ignore[misc]
        return in_turn(steps, rounds), in_turn(forwards, rounds)


def threads() -> int:
    """OpenMP threads of each process: OMP_NUM_THREADS, else as many as there are cores for it."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def zoo_twin(detector: Detector, backbone: str, size: int) -> SSD:
    """GluonCV's SSD with the detector's weights, but its own."""
    net = zoo.build(backbone, size, CLASSES)
    own = net._collect_params_with_prefix()
    for name, parameter in detector.weights().items():
        own[name].set_data(parameter.data())
    return net


def copied(detector: Detector, backbone: str, size: int) -> Detector:
    """Another detector with the same weights."""
    return join(*split(zoo_twin(detector, backbone, size)))


def our_step(detector: Detector, batch: TrainBatch) -> Callable[[], dict[str, list[nd.NDArray]]]:
    """A stage's step without distillers; gives the losses when its work is done."""
    networks = Networks(detector, SSDLoss())
    networks.hybridize()
    step = Step(networks, [], Optimisation(networks.parameters(), SGD, Schedule(), [CPU]), [CPU])

    def call() -> dict[str, list[nd.NDArray]]:
        losses = step(batch, HERE)
        nd.waitall()
        return losses

    return call


def script_step(net: SSD, batch: TrainBatch) -> Callable[[], float]:
    """What GluonCV's scripts/detection/ssd/train_ssd.py does with a batch; gives the loss."""
    trainer = gluon.Trainer(
        net.collect_params(),
        "sgd",
        {"learning_rate": SGD.lr, "momentum": SGD.momentum, "wd": SGD.wd},
    )
    loss = SSDMultiBoxLoss()
    metrics = [mx.metric.Loss("CrossEntropy"), mx.metric.Loss("SmoothL1")]
    net.hybridize(static_alloc=True, static_shape=True)

    def call() -> float:
        arrays = (batch.images, *batch.targets)
        images, *targets = [gluon.utils.split_and_load(nd.array(array), ctx_list=[CPU]) for array in arrays]
        with autograd.record():
            scores, offsets, _ = zip(*[net(x) for x in images])
            total, *parts = loss(scores, offsets, *targets)
            autograd.backward(total)
        trainer.step(1)
        for metric, part in zip(metrics, parts):
            metric.update(0, [each * len(batch.images) for each in part])
        nd.waitall()
        return float(total[0].sum().asscalar())

    return call


def our_forward(detector: Detector, batch: TrainBatch) -> Callable[[], list[nd.NDArray]]:
    """Scores and offsets of the batch, BatchNorm by its running statistics."""
    networks = Networks(detector, SSDLoss())
    networks.hybridize()
    images = nd.array(batch.images)

    def call() -> list[nd.NDArray]:
        predictions = detector.head(*detector.extractor(images))
        nd.waitall()
        return predictions

    return call


def detections(net: gluon.HybridBlock, batch: TrainBatch) -> Callable[[], None]:
    """Forward to boxes after suppression, of our detector or GluonCV's."""
    net.hybridize(static_alloc=True, static_shape=True)
    images = nd.array(batch.images)

    def call() -> None:
        net(images)
        nd.waitall()

    return call


def graph_of(detector: Detector) -> mx.sym.Symbol:
    """Image -> scores, offsets, as MXNet's graph."""
    return mx.sym.Group(list(detector.head(*detector.extractor(mx.sym.var("data")))))


def weights_of(detector: Detector) -> dict[str, np.ndarray]:
    """Parameters by their names in the graph."""
    return {name: parameter.data().asnumpy() for name, parameter in detector.collect_params().items()}


@contextmanager
def torch_process(detector: Detector, batch: TrainBatch, layout: str, folder: Path) -> Iterator[Callable[[str], str]]:
    """A process with the same network in PyTorch, files in `folder`; what is given sends it a command and waits.

    layout: 'contiguous' or 'channels_last'. RuntimeError when the process ends before it has answered.
    """
    (folder / "graph.json").write_text(graph_of(detector).tojson())
    np.savez(folder / "weights.npz", **weights_of(detector))
    np.savez(folder / "batch.npz", images=batch.images, classes=batch.targets[0], boxes=batch.targets[1])
    with subprocess.Popen(
        [str(TORCH_PYTHON), "-m", "scripts.timings.torch_ssd", str(folder), str(threads()), layout],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        send, answers = process.stdin, process.stdout

        def ask(command: str) -> str:
            print(command, file=send, flush=True)
            answer = answers.readline()
            if not answer:
                raise RuntimeError(f"the process with PyTorch ended in '{command}'")
            return answer.strip()

        yield ask


def _median(seconds: dict[str, list[float]], rival: str, ours: str) -> float:
    return float(np.median(ratios(seconds[rival], seconds[ours])))
