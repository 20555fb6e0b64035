#!/usr/bin/env python3
"""GluonCV's own training loop of Faster R-CNN beside ours: the baseline of a recipe, trained by GluonCV.

    python scripts/gluoncv_faster_rcnn.py [--recipe faster_rcnn_mini/none] [--seed 1] [--out DIR]

Images, first weights, epochs, rates and anchors are the recipe's. Transform, RPN targets, sampler, order of images and
losses are GluonCV's, so that its RPN learns from no anchor that leaves the image, whatever `faster_rcnn.border` says.
DIR gets best.params of the last epoch and eval.json, measured as every network here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gan_kd import compat  # noqa: F401  (before MXNet is imported)

# isort: split

import gluoncv
import mxnet as mx
import numpy as np
from gluoncv.data.batchify import FasterRCNNTrainBatchify
from gluoncv.data.sampler import SplitSortedBucketSampler
from gluoncv.data.transforms.presets.rcnn import FasterRCNNDefaultTrainTransform
from gluoncv.model_zoo.rcnn.faster_rcnn.data_parallel import ForwardBackwardTask
from gluoncv.model_zoo.rcnn.faster_rcnn.faster_rcnn import FasterRCNN
from mxnet import gluon

from gan_kd.data.check import preflight
from gan_kd.data.dataset import DetectionDataset
from gan_kd.detectors.base import Detector
from gan_kd.detectors.faster_rcnn import zoo
from gan_kd.detectors.faster_rcnn.settings import of_gluoncv
from gan_kd.detectors.saved import describe, save_detector
from gan_kd.errors import UsageError, UserError
from gan_kd.evaluation.evaluate import evaluate_params
from gan_kd.recipe import Recipe, load
from gan_kd.recipe.faster_rcnn import longest
from gan_kd.system.files import write_json
from gan_kd.training.networks import build_student

NAMES = ("RPN_Conf", "RPN_SmoothL1", "RCNN_CrossEntropy", "RCNN_SmoothL1")
CPU = mx.cpu()


class Images(gluon.data.Dataset):
    """Our images and objects, as GluonCV's data sets give them."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[mx.nd.NDArray, np.ndarray]:
        return mx.nd.array(self.dataset.image(index), dtype="uint8"), self.dataset.label(index)

    def aspect_ratios(self) -> list[float]:
        """Width over height of each image."""
        return [record.width / record.height for record in self.dataset.records]


def whole(recipe: Recipe, detector: Detector) -> FasterRCNN:
    """GluonCV's network with the weights of ours."""
    layers = zoo.cut(recipe.student.backbone)
    numbers = {**of_gluoncv(recipe.faster_rcnn), "short": recipe.data.size, "max_size": longest(recipe.data.size)}
    net = FasterRCNN(
        layers.features,
        layers.top,
        list(detector.classes),
        per_device_batch_size=recipe.train.batch_size,
        **numbers,
    )
    for name, parameter in net._collect_params_with_prefix().items():
        given = detector.weights()[name]
        parameter.shape, parameter.grad_req = given.shape, given.grad_req
        parameter.initialize(ctx=CPU)
        parameter.set_data(given.data(CPU))
    return net


def rates(recipe: Recipe) -> list[float]:
    """The learning rate of each epoch. UsageError for a baseline whose rate changes within a stage."""
    found = []
    for name, stage in recipe.stages.items():
        schedule, optimizer = stage.schedule, stage.optimizer
        if stage.trains != "baseline" or optimizer.name != "sgd" or schedule.warmup_batches or schedule.at:
            raise UsageError(
                f"stages.{name}: GluonCV's loop takes stages of the baseline by SGD at one rate each; name a recipe "
                "of such, as faster_rcnn_mini/none"
            )
        found += [optimizer.lr] * stage.epochs
    return found


def train(recipe: Recipe, net: FasterRCNN, dataset: DetectionDataset) -> None:
    """GluonCV's loop, on the CPU: prints the means of its losses after each epoch."""
    first, images = next(iter(recipe.stages.values())).optimizer, Images(dataset)
    transform = FasterRCNNDefaultTrainTransform(
        net.short, net.max_size, net, ashape=net.ashape, num_sample=recipe.faster_rcnn.rpn_samples
    )
    loader = gluon.data.DataLoader(
        images.transform(transform),
        batch_sampler=SplitSortedBucketSampler(images.aspect_ratios(), recipe.train.batch_size, shuffle=True),
        batchify_fn=FasterRCNNTrainBatchify(net),
    )
    trainer = gluon.Trainer(
        net.collect_train_params(), "sgd", {"learning_rate": first.lr, "momentum": first.momentum, "wd": first.wd}
    )
    task = ForwardBackwardTask(
        net,
        trainer,
        gluon.loss.SigmoidBinaryCrossEntropyLoss(from_sigmoid=False),
        gluon.loss.HuberLoss(rho=1 / 9),
        gluon.loss.SoftmaxCrossEntropyLoss(),
        gluon.loss.HuberLoss(rho=1),
        mix_ratio=1.0,
        amp_enabled=False,
    )
    net.hybridize(static_alloc=True)
    for epoch, rate in enumerate(rates(recipe), 1):
        trainer.set_learning_rate(rate)
        sums = mx.nd.zeros(len(NAMES))
        for batch in loader:
            parts = [part[0] if isinstance(part, tuple) else part for part in batch]
            found = task.forward_backward([part.as_in_context(CPU) for part in parts])  # from shared memory
            trainer.step(recipe.train.batch_size)
            sums += mx.nd.concat(*found[: len(NAMES)], dim=0)
        means = (sums / len(loader)).asnumpy()
        print(f"epoch {epoch}: " + ", ".join(f"{name} {mean:.3f}" for name, mean in zip(NAMES, means)), flush=True)


def main(argv: Sequence[str]) -> int:
    """0, and 2 or 1 with a sentence for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="gluoncv_faster_rcnn.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipe", default="faster_rcnn_mini/none", help="of a baseline (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the recipe")
    parser.add_argument("--seed", type=int, default=1, help="of weights, order and sampling (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/gluoncv"), metavar="DIR", help="(%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        recipe = load(arguments.recipe, [*arguments.set, f"train.seed={arguments.seed}"])
        rates(recipe)
        train_set, val_set = preflight(recipe.data)
        detector = build_student(recipe, train_set.classes, "baseline", None).detector
        gluoncv.utils.random.seed(arguments.seed)
        net = whole(recipe, detector)
        train(recipe, net, train_set)
        params = arguments.out / "best.params"
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, parameter in detector.weights().items():
            parameter.set_data(net._collect_params_with_prefix()[name].data(CPU))
        save_detector(detector, params, {**describe(recipe, "baseline", detector), "seed": arguments.seed})
        found = evaluate_params(recipe, params, [CPU], val_set)
        write_json(arguments.out / "eval.json", found)
        print(f"{found['metric']} mAP {found['map']:.2f}, {params}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
