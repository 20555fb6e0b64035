"""Faster R-CNN as the engine sees it; see `gan_kd.detectors.families.Family`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gan_kd.data.sizes import Bounded
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.base import Detector, Level, Parts
from gan_kd.detectors.families import Cost, Network
from gan_kd.detectors.faster_rcnn import network as faster_rcnn
from gan_kd.detectors.faster_rcnn import zoo
from gan_kd.detectors.faster_rcnn.loss import FasterRCNNLoss
from gan_kd.detectors.faster_rcnn.settings import anchors_per_cell
from gan_kd.detectors.faster_rcnn.targets import GridAnchors
from gan_kd.detectors.faster_rcnn.transform import FasterRCNNTrainTransform
from gan_kd.detectors.store import weights_file
from gan_kd.gluon.initial import initialise
from gan_kd.recipe import Eval, Recipe
from gan_kd.recipe.convert import build as converted
from gan_kd.recipe.faster_rcnn import FasterRCNN as Config
from gan_kd.recipe.faster_rcnn import longest
from gan_kd.system.memory import expect_many_sizes

FORMS = ("mxnet",)
_KEY = "faster_rcnn"  # of the section in recipes and descriptions


def downloads(recipe: Recipe) -> list[str]:
    """Backbones."""
    pairs = ((recipe.teacher, ("teacher",)), (recipe.student, ("baseline", "control", "distilled")))
    return sorted({each.backbone for each, trained in pairs if recipe.trains(*trained) and each.init == "imagenet"})


def build(recipe: Recipe, network: Network, classes: Sequence[str]) -> Parts:
    """GluonCV's Faster R-CNN, taken apart."""
    init = weights_file(network.backbone) if network.init == "imagenet" else network.init
    return _parts(recipe.data.size, *zoo.build(network.backbone, classes, recipe.faster_rcnn, init))


def assemble(recipe: Recipe, network: Network, classes: Sequence[str]) -> Parts:
    """The same without values."""
    return _parts(recipe.data.size, *zoo.assemble(network.backbone, classes, recipe.faster_rcnn))


def about(recipe: Recipe, network: Network) -> dict[str, Any]:
    """The section."""
    return {_KEY: dataclasses.asdict(recipe.faster_rcnn)}


def restore(about: Mapping[str, Any]) -> Parts:
    """From backbone, size, classes and the section."""
    return _parts(about["size"], *zoo.build(about["backbone"], about["classes"], _config(about)))


def head_for(levels: Sequence[Level] | None, about: Mapping[str, Any]) -> tuple[faster_rcnn.Head, list[Level]]:
    """RPN, last layers of the teacher's backbone, predictors."""
    extractor, head = zoo.assemble(about["backbone"], about["classes"], _config(about))
    initialise(head.collect_params().values())
    return head, list(levels or extractor.levels)


def lend(head: faster_rcnn.Head, trained: bool) -> faster_rcnn.Head:
    """With the last layers of the teacher's backbone, so that student and teacher cost the same behind the map."""
    return zoo.new_head(head, trained)


def comparable(student: Parts, teacher: Parts) -> bool:
    """Whether a head of the one is trained as one of the other: by the same anchors and regions."""
    return bool(student.head.config == teacher.head.config)


def join(parts: Parts, adapters: Adapters | None, measured: Eval) -> Detector:
    """With the suppression of the recipe."""
    return faster_rcnn.join(
        parts.extractor, parts.head, parts.sizes, adapters, measured.nms, measured.nms_topk, measured.post_nms
    )


def anchors(parts: Parts, levels: Sequence[int]) -> GridAnchors:
    """The RPN's, of its one map."""
    return GridAnchors(tuple(parts.head.config.scales))


def train_transform(recipe: Recipe, parts: Parts) -> FasterRCNNTrainTransform:
    """Resize, mirroring, and targets of the RPN."""
    return FasterRCNNTrainTransform(recipe.data.size, recipe.faster_rcnn)


def detection_loss(recipe: Recipe) -> FasterRCNNLoss:
    """Of the RPN and of the regions."""
    return FasterRCNNLoss()


def cost(parts: Parts) -> Cost:
    """Head with targets and its losses; in detection the same RPN, more or fewer regions."""
    (level,) = parts.extractor.levels
    config, classes, objects = parts.head.config, len(parts.head.classes), 1
    size = parts.sizes.typical
    shape = (1, *level.shape(size))
    count = shape[2] * shape[3] * anchors_per_cell(config)
    inputs = [shape, (1, 2), (1, objects, 5), (1, config.train_proposals + objects)]
    head = (parts.head, inputs)
    detected = (faster_rcnn.Decoder(parts.head), [shape, (1, 2)])
    scores = config.test_proposals * classes
    targets = 5 * count + config.train_proposals
    return Cost([head], [detected], 5 * count + 5 * scores, scores, targets)


def _config(about: Mapping[str, Any]) -> Config:
    config: Config = converted(Config, about.get(_KEY, {}), _KEY)
    return config


def _parts(size: int, extractor: faster_rcnn.Extractor, head: faster_rcnn.Head) -> Parts:
    expect_many_sizes()
    return Parts(extractor, head, Bounded(size, longest(size)))
