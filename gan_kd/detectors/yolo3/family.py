"""YOLOv3 as the engine sees it; see `gan_kd.detectors.families.Family`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gluoncv.model_zoo.yolo.yolo3 import YOLOV3

from gan_kd.data.sizes import Square
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.base import Detector, Level, Parts
from gan_kd.detectors.families import Cost, Network
from gan_kd.detectors.yolo3 import network as yolo3
from gan_kd.detectors.yolo3 import zoo
from gan_kd.detectors.yolo3.anchors import YOLO3Anchors, anchor_count
from gan_kd.detectors.yolo3.loss import YOLO3DetectionLoss, YOLO3Loss
from gan_kd.detectors.yolo3.network import YOLO3Head
from gan_kd.detectors.yolo3.targets import ROW
from gan_kd.detectors.yolo3.transform import YOLO3TrainTransform
from gan_kd.gluon.initial import initialise
from gan_kd.recipe import Eval, Recipe, Teacher

FORMS = ("mxnet", "onnx")
_SMALLEST_BACKBONE = "mobilenet0.25"  # under a head that is built by itself
_OBJECTS = 20  # of an image, to count with


def downloads(recipe: Recipe) -> list[str]:
    """The teacher of the zoo, and backbones."""
    names = set()
    if recipe.needs_teacher and recipe.teacher.weights == "zoo":
        names.add(f"yolo3_{recipe.teacher.backbone}_{recipe.data.classes}")
    for network, trained in ((recipe.teacher, ("teacher",)), (recipe.student, ("baseline", "control", "distilled"))):
        if recipe.trains(*trained) and network.init == "imagenet":
            names.add(network.backbone)
    return sorted(names)


def build(recipe: Recipe, network: Network, classes: Sequence[str]) -> Parts:
    """GluonCV's YOLOv3, taken apart; the zoo's trained one where the teacher's weights are the zoo's."""
    if isinstance(network, Teacher) and network.weights == "zoo":
        return _parts(recipe, zoo.load_zoo_detector(network.backbone, str(recipe.data.classes)))
    filters, objectness = _filters(recipe, network), recipe.yolo3.objectness
    return _parts(recipe, zoo.build(network.backbone, classes, filters, network.init, objectness))


def assemble(recipe: Recipe, network: Network, classes: Sequence[str]) -> Parts:
    """The same without values."""
    return _parts(recipe, zoo.assemble(network.backbone, classes, _filters(recipe, network)))


def about(recipe: Recipe, network: Network) -> dict[str, Any]:
    """The channels of the fused maps."""
    return {"filters": _filters(recipe, network)}


def restore(about: Mapping[str, Any]) -> Parts:
    """From backbone, size, classes and filters."""
    net = zoo.build(about["backbone"], about["classes"], about["filters"])
    return Parts(*yolo3.split(net, about["size"]), Square(about["size"]))


def head_for(levels: Sequence[Level] | None, about: Mapping[str, Any]) -> tuple[YOLO3Head, list[Level]]:
    """Convolutions and predictors behind the fused maps of these levels."""
    if levels is None:
        extractor = yolo3.split(zoo.assemble(about["backbone"], about["classes"], about["filters"]), about["size"])[0]
        levels = [extractor.levels[index] for index in extractor.to_head]
    return _head(about["classes"], [level.channels for level in reversed(levels)]), list(levels)


def lend(head: YOLO3Head, trained: bool) -> YOLO3Head:
    """Its last 3x3 convolutions and predictors."""
    other = _head(head.classes, head.filters)
    other.collect_params().reset_ctx(head.contexts)
    if trained:
        given = head._collect_params_with_prefix()
        for name, parameter in other._collect_params_with_prefix().items():
            parameter.set_data(given[name].data(given[name].list_ctx()[0]))
    return other


def lend_neck(teacher: Parts, student: Parts) -> None:
    """Values of all that lies between backbone and head."""
    given = teacher.extractor._collect_params_with_prefix()
    for name, parameter in student.extractor._collect_params_with_prefix().items():
        if not name.startswith("stages."):
            parameter.set_data(given[name].data(given[name].list_ctx()[0]))


def comparable(student: Parts, teacher: Parts) -> bool:
    """Always: the anchors are the same."""
    return True


def join(parts: Parts, adapters: Adapters | None, measured: Eval) -> Detector:
    """For the recipe's square."""
    return yolo3.join(parts, adapters, measured.nms, measured.nms_topk, measured.post_nms)


def train_transform(recipe: Recipe, parts: Parts) -> YOLO3TrainTransform:
    """Squares of the recipe's sides."""
    sides = recipe.yolo3.sides or [recipe.data.size]
    return YOLO3TrainTransform(sides, recipe.yolo3.mixup_epochs, recipe.data.augment)


def detection_loss(recipe: Recipe) -> YOLO3DetectionLoss:
    """Objectness, centre, scale and class."""
    return YOLO3DetectionLoss(recipe.yolo3.label_smoothing, recipe.train.sync_bn)


def anchors(parts: Parts, levels: Sequence[int]) -> YOLO3Anchors:
    """Of backbone and neck alike: a map has the anchors of its stride."""
    return YOLO3Anchors([int(parts.extractor.levels[index].stride) for index in levels])


def cost(parts: Parts) -> Cost:
    """Head and loss."""
    levels = [parts.extractor.levels[index] for index in parts.extractor.to_head]
    count, classes = anchor_count(parts.sizes.typical[0]), len(parts.head.classes)
    numbers = [(1, count, each) for each in (4, 1, 2, 2, classes)]
    targets = [(1, count, each) for each in (1, 2, 2, 2, classes)]
    loss = (YOLO3Loss(classes), [*numbers, (1, _OBJECTS, 4), (1,), *targets])
    head = (parts.head, [(1, *level.shape(parts.sizes.typical)) for level in levels])
    return Cost([head, loss], [head], count * (9 + classes), count * classes, _OBJECTS * ROW)


def _filters(recipe: Recipe, network: Network) -> list[int]:
    """Channels of a network's fused maps."""
    own = recipe.yolo3
    filters = own.teacher_filters if isinstance(network, Teacher) else own.student_filters
    return list(filters or zoo.FILTERS[network.backbone])


def _parts(recipe: Recipe, net: YOLOV3) -> Parts:
    """Maps vary in size where training does."""
    varies = len(recipe.yolo3.sides) > 0
    return Parts(*yolo3.split(net, None if varies else recipe.data.size), Square(recipe.data.size))


def _head(classes: Sequence[str], filters: Sequence[int]) -> YOLO3Head:
    """A head with first weights."""
    head = YOLO3Head(zoo.assemble(_SMALLEST_BACKBONE, classes, filters))
    initialise(head.collect_params().values())
    return head
