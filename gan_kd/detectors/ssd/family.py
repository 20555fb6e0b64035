"""SSD as the engine sees it; see `gan_kd.detectors.families.Family`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gan_kd.data.sizes import Square
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.anchors import FixedAnchors
from gan_kd.detectors.base import Detector, Level, Parts
from gan_kd.detectors.families import Cost, Network
from gan_kd.detectors.ssd import network as ssd
from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.head import SSDHead, new_head, untrained_head
from gan_kd.detectors.ssd.loss import MultiBoxLoss, SSDLoss
from gan_kd.detectors.ssd.transform import SSDTrainTransform
from gan_kd.recipe import Eval, Recipe, Teacher

FORMS = ("mxnet", "onnx", "int8")


def downloads(recipe: Recipe) -> list[str]:
    """The teacher of the zoo, and backbones."""
    names = {zoo_name(recipe)} if recipe.needs_teacher and recipe.teacher.weights == "zoo" else set()
    for network, trained in ((recipe.teacher, ("teacher",)), (recipe.student, ("baseline", "control", "distilled"))):
        if recipe.trains(*trained) and network.init == "imagenet":
            names.add(network.backbone)
    return sorted(names)


def zoo_name(recipe: Recipe) -> str:
    """GluonCV's name of the recipe's teacher."""
    dataset = "coco" if recipe.data.classes == "coco" else "voc"
    return f"ssd_{recipe.data.size}_{recipe.teacher.backbone}_{dataset}"


def build(recipe: Recipe, network: Network, classes: Sequence[str]) -> Parts:
    """GluonCV's SSD, taken apart; the zoo's trained one where the teacher's weights are the zoo's."""
    if isinstance(network, Teacher) and network.weights == "zoo":
        return _parts(zoo.load_zoo_detector(zoo_name(recipe)))
    return _parts(zoo.build(network.backbone, recipe.data.size, classes, network.init, taps=network.taps))


def assemble(recipe: Recipe, network: Network, classes: Sequence[str]) -> Parts:
    """The same without values."""
    return _parts(zoo.assemble(network.backbone, recipe.data.size, classes, taps=network.taps))


def about(recipe: Recipe, network: Network) -> dict[str, Any]:
    """The taps."""
    return {"taps": zoo.taps_of(network.backbone, network.taps)}


def restore(about: Mapping[str, Any]) -> Parts:
    """From backbone, size, classes and taps; files older than the choice of taps lack these."""
    return _parts(zoo.build(about["backbone"], about["size"], about["classes"], taps=about.get("taps")))


def head_for(levels: Sequence[Level] | None, about: Mapping[str, Any]) -> tuple[SSDHead, list[Level]]:
    """Predictors and anchors for the maps of these levels."""
    backbone, size, classes, taps = about["backbone"], about["size"], about["classes"], about.get("taps")
    if levels is None:
        levels = _parts(zoo.assemble(backbone, size, classes, taps=taps)).extractor.levels
    channels, sides = [level.channels for level in levels], [level.side or 0 for level in levels]
    return ssd.head_of(zoo.without_backbone(backbone, size, classes, taps, channels, sides)), list(levels)


def lend(head: SSDHead, trained: bool) -> SSDHead:
    """With the given head's anchors."""
    return new_head(head) if trained else untrained_head(head)


def comparable(student: Parts, teacher: Parts) -> bool:
    """Whether their anchors are the same."""
    # As shapes alone the networks have no parameters to read, but constants know their value.
    pairs = zip(student.head.allocated, teacher.head.allocated)
    return student.extractor.sizes == teacher.extractor.sizes and all(
        np.array_equal(one.value.asnumpy(), other.value.asnumpy()) for one, other in pairs
    )


def join(parts: Parts, adapters: Adapters | None, measured: Eval) -> Detector:
    """With the anchors of the head."""
    return ssd.join(parts.extractor, parts.head, adapters, measured.nms, measured.nms_topk, measured.post_nms)


def train_transform(recipe: Recipe, parts: Parts) -> SSDTrainTransform:
    """SSD's augmentation, and targets for the anchors of the head."""
    anchors = parts.head.anchors(parts.extractor.sizes)
    return SSDTrainTransform(recipe.data.size, anchors, recipe.data.augment)


def detection_loss(recipe: Recipe) -> SSDLoss:
    """Multibox loss."""
    return SSDLoss()


def anchors(parts: Parts, levels: Sequence[int]) -> FixedAnchors:
    """As the head has them."""
    maps = parts.head.corners(parts.extractor.sizes)
    return FixedAnchors([maps[level] for level in levels])


def cost(parts: Parts) -> Cost:
    """Head and multibox loss."""
    maps = [(1, *level.shape(parts.sizes.typical)) for level in parts.extractor.levels]
    per_cell = [anchors.shape[-1] // 4 for anchors in parts.head.allocated]
    count = sum(n * side**2 for n, side in zip(per_cell, parts.extractor.sizes))
    width = len(parts.head.classes) + 1
    loss = [(1, count, width), (1, count, 4), (1, count), (1, count, 4), (1,)]
    head = (parts.head, maps)
    return Cost([head, (MultiBoxLoss(), loss)], [head], count * (width + 4), count * width, 5 * count)


def _parts(net: Any) -> Parts:
    extractor, head = ssd.split(net)
    return Parts(extractor, head, Square(extractor.size))
