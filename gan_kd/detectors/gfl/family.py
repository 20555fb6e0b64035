"""GFL as the engine sees it; see `gan_kd.detectors.families.Family`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gan_kd.data.sizes import Bounded, Sizes, Square
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.base import Detector, Level, Parts
from gan_kd.detectors.families import Cost, Network
from gan_kd.detectors.gfl import network as gfl
from gan_kd.detectors.gfl import priors
from gan_kd.detectors.gfl.detector import GFLDetector, fixed
from gan_kd.detectors.gfl.loss import GFLLoss
from gan_kd.detectors.gfl.transform import MULTIPLE, GFLTrainTransform
from gan_kd.detectors.store import weights_file
from gan_kd.gluon.initial import initialise
from gan_kd.recipe import Eval, Gfl, Recipe, convert
from gan_kd.system.memory import expect_many_sizes

FORMS = ("mxnet", "onnx")


def downloads(recipe: Recipe) -> list[str]:
    """Backbones."""
    roles = ((recipe.teacher, ("teacher",)), (recipe.student, ("baseline", "control", "distilled")))
    return sorted(
        {network.backbone for network, trained in roles if network.init == "imagenet" and recipe.trains(*trained)}
    )


def build(recipe: Recipe, network: Network, classes: Sequence[str]) -> Parts:
    """With the backbone's ImageNet weights, a .params file's, or random ones."""
    parts = assemble(recipe, network, classes)
    _draw(parts)
    if network.init != "random":
        path = weights_file(network.backbone) if network.init == "imagenet" else network.init
        parts.extractor.load_backbone(network.backbone, path)
    return parts


def assemble(recipe: Recipe, network: Network, classes: Sequence[str]) -> Parts:
    """The same without values."""
    return _parts(network.backbone, recipe.data.size, classes, recipe.gfl)


def about(recipe: Recipe, network: Network) -> dict[str, Any]:
    """The settings of neck and head."""
    return {"gfl": dataclasses.asdict(recipe.gfl)}


def restore(about: Mapping[str, Any]) -> Parts:
    """From backbone, size, classes and settings."""
    parts = _parts(about["backbone"], about["size"], about["classes"], _settings(about))
    _draw(parts)
    return parts


def head_for(levels: Sequence[Level] | None, about: Mapping[str, Any]) -> tuple[gfl.GFLHead, list[Level]]:
    """A head of the described settings; levels of any GFL are known."""
    head = gfl.GFLHead(about["classes"], _settings(about))
    head.initialize()
    if levels is None:
        levels = _parts(about["backbone"], about["size"], about["classes"], head.settings).extractor.levels
    return head, list(levels)


def lend(head: gfl.GFLHead, trained: bool) -> gfl.GFLHead:
    """With the given head's settings."""
    copied = gfl.GFLHead(head.classes, head.settings)
    copied.initialize(ctx=head.contexts)
    if trained:
        given = head._collect_params_with_prefix()
        for name, parameter in copied._collect_params_with_prefix().items():
            parameter.set_data(given[name].data(head.contexts[0]))
    return copied


def comparable(student: Parts, teacher: Parts) -> bool:
    """Whether edges have the same bins; priors of one input are always the same."""
    return bool(student.head.settings.reg_max == teacher.head.settings.reg_max and student.sizes == teacher.sizes)


def join(parts: Parts, adapters: Adapters | None, measured: Eval) -> Detector:
    """With a decoder for the input's size, or for each size where inputs vary."""
    return GFLDetector(parts, adapters, measured) if parts.sizes.padded else fixed(parts, adapters, measured)


def train_transform(recipe: Recipe, parts: Parts) -> GFLTrainTransform:
    """Images with the object of every prior."""
    return GFLTrainTransform(parts.sizes, recipe.data.augment == "flip")


def detection_loss(recipe: Recipe) -> GFLLoss:
    """Quality and distribution focal loss, GIoU."""
    return GFLLoss(recipe.gfl.reg_max)


def cost(parts: Parts) -> Cost:
    """The head; its losses are of positives alone, but for the class loss, some copies of the scores."""
    height, width = parts.sizes.typical
    maps = [(1, *parts.extractor.levels[index].shape((height, width))) for index in parts.extractor.to_head]
    cells = sum(rows * columns for rows, columns in priors.shapes(width, height))
    head, classes = (parts.head, maps), len(parts.head.classes)
    return Cost([head], [head], cells * (classes + 4 * (parts.head.settings.reg_max + 1)), cells * classes, cells)


def _settings(about: Mapping[str, Any]) -> Gfl:
    """Of a described network; UsageError for what cannot be, since a file may be anybody's."""
    settings: Gfl = convert.build(Gfl, about.get("gfl", {}), "gfl")
    return settings


def _parts(backbone: str, size: int, classes: Sequence[str], settings: Gfl) -> Parts:
    sizes: Sizes = Square(size) if settings.short is None else Bounded(settings.short, settings.longest, MULTIPLE)
    side = None if sizes.padded else size
    if sizes.padded:
        expect_many_sizes()
    extractor = gfl.GFLExtractor(gfl.backbone(backbone, settings.freeze), settings.width, side)
    return Parts(extractor, gfl.GFLHead(classes, settings), sizes)


def _draw(parts: Parts) -> None:
    """First weights: He in the backbone, in neck and head their own rules."""
    for block in (parts.extractor, parts.head):
        initialise(block.collect_params().values())
