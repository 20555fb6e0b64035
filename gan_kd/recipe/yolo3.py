"""What a recipe can ask of YOLOv3: its keys, and facts that need no MXNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gan_kd.errors import UsageError
from gan_kd.recipe.knob import knob

if TYPE_CHECKING:
    from gan_kd.recipe.schema import Recipe

#: Channels of the fused maps of stride 32, 16, 8, by backbone: GluonCV's where its zoo has the network.
FILTERS = {
    "darknet53": (512, 256, 128),
    "mobilenet1.0": (512, 256, 128),
    "mobilenet0.75": (512, 256, 128),
    "mobilenet0.5": (256, 128, 128),
    "mobilenet0.25": (256, 128, 128),
}
BACKBONES = tuple(FILTERS)
#: Backbones of the trained detectors in GluonCV's zoo, for VOC and COCO each.
TRAINED = ("darknet53", "mobilenet1.0")
#: Why `export` cannot write it in a form.
UNWRITTEN = {
    "int8": "it cost 1.7 points of mAP, more than 1; boxes, objectness and classes come from one convolution",
}
# px: below, the last map is a single cell; above, the first one has more than the 128x128 cells of GluonCV's blocks.
_SMALLEST, _LARGEST, _STEP = 64, 1024, 32


@dataclass(frozen=True)
class Yolo3:
    """YOLOv3 alone (detector: yolo3)."""

    teacher_filters: list[int] | None = knob(
        "channels of the teacher's fused maps of stride 32, 16, 8, even; null: GluonCV's for its backbone",
        None,
        least=2,
    )
    student_filters: list[int] | None = knob("the same of the student", None, least=2)
    objectness: float = knob(
        "first bias of objectness: 0, as GluonCV, is an object at half of all anchors, -4.6 at a hundredth", 0.0
    )
    sides: list[int] = knob(
        "sides of the square input in training, px, drawn anew every ten batches; empty: data.size", make=list
    )
    mixup_epochs: int = knob(
        "first epochs of a network, in which each image is mixed with another one; distillers see the mixture and the "
        "objects of both",
        0,
        least=0,
    )
    label_smoothing: bool = knob("targets of classes a little above 0 and below 1", False)


def check(recipe: Recipe) -> None:
    """UsageError for a YOLOv3 that cannot be."""
    own, teacher = recipe.yolo3, recipe.teacher
    for path, sides in (("data.size", [recipe.data.size]), ("yolo3.sides", own.sides)):
        for side in sides:
            if side % _STEP or not _SMALLEST <= side <= _LARGEST:
                raise UsageError(
                    f"{path}: YOLOv3 takes squares of {_SMALLEST} to {_LARGEST} px in steps of {_STEP}, not {side}"
                )
    named = {name for stage in recipe.stages.values() for name in stage.distillers}
    # A critic of maps of any size halves them twice, and needs 4 cells a side of the last map.
    if "gan" in named and recipe.distill.gan.kind == "image" and own.sides and min(own.sides) < 4 * _STEP:
        raise UsageError(
            f"yolo3.sides: {min(own.sides)} px leave a critic of images fewer than 4x4 cells; begin at {4 * _STEP}, or "
            "set distill.gan.kind to cell or patch"
        )
    for role, network, filters in (
        ("teacher", teacher, own.teacher_filters),
        ("student", recipe.student, own.student_filters),
    ):
        if filters is not None and (len(filters) != 3 or any(count % 2 for count in filters)):
            raise UsageError(f"yolo3.{role}_filters are three even numbers, as in [512, 256, 128], not {filters}")
        if network.taps:
            raise UsageError(f"{role}.taps are for SSD; YOLOv3 has its three maps of the backbone: set them to null")
    zoo = recipe.needs_teacher and teacher.weights == "zoo"
    if zoo and (recipe.data.classes not in ("voc", "coco") or teacher.backbone not in TRAINED):
        raise UsageError(
            f"teacher.weights zoo: GluonCV has YOLOv3 on {' and '.join(TRAINED)} for voc and coco, not on "
            f"{teacher.backbone} for these classes; name a .params file, or null and a stage that trains the teacher"
        )
    if zoo and tuple(own.teacher_filters or FILTERS[teacher.backbone]) != FILTERS[teacher.backbone]:
        raise UsageError("yolo3.teacher_filters are not those of GluonCV's trained network (teacher.weights zoo)")
