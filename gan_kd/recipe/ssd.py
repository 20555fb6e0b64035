"""What a recipe can ask of SSD: facts that need no MXNet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gan_kd.errors import UsageError
from gan_kd.recipe.backbones import BY_STRIDE

if TYPE_CHECKING:
    from gan_kd.recipe.schema import Recipe

# Backbones of an SSD by the stride of its first map: 16 gives six maps (paper, figure 2), 8 gives seven, or
# six larger ones, with other anchors, so that the two kinds cannot share a head.
FIRST_STRIDE = {
    "mobilenet0.25": 16, "mobilenet0.5": 16, "mobilenet0.75": 16, "mobilenet1.0": 16, "mobilenetv2_1.0": 16,
    "resnet18_v1": 16, "resnet50_v1": 16, "resnet101_v2": 16,
    "resnet34_v1b": 8, "resnet152_v2": 8, "vgg16_atrous": 8,
}  # fmt: skip
BACKBONES = (*FIRST_STRIDE, *BY_STRIDE)
# Those whose extra layers fit certain inputs only, in px.
FIXED_SIZES = {"vgg16_atrous": (300, 512), "resnet34_v1b": (300,)}
# Detectors with weights published in GluonCV's model zoo, as (input px, backbone), by data set.
ZOO_WEIGHTS = {
    "voc": {(300, "vgg16_atrous"), (512, "vgg16_atrous"), (512, "resnet50_v1"), (512, "resnet101_v2"),
            (512, "mobilenet1.0")},
    "coco": {(300, "vgg16_atrous"), (512, "vgg16_atrous"), (512, "resnet50_v1"), (512, "mobilenet1.0"),
             (300, "resnet34_v1b")},
}  # fmt: skip


def check(recipe: Recipe) -> None:
    """UsageError for an SSD that cannot be, or whose head the student cannot take."""
    teacher, student, size = recipe.teacher, recipe.student, recipe.data.size
    used = {"teacher": recipe.needs_teacher, "student": recipe.trains("baseline", "control", "distilled")}
    for role, network in (("teacher", teacher), ("student", student)):
        sizes = FIXED_SIZES.get(network.backbone)
        if used[role] and sizes and size not in sizes:
            fitting = " or ".join(map(str, sizes))
            raise UsageError(f"{role}.backbone {network.backbone} needs data.size {fitting}, not {size}")
    published = ZOO_WEIGHTS.get(recipe.data.classes if isinstance(recipe.data.classes, str) else "", set())
    if recipe.needs_teacher and teacher.weights == "zoo" and (size, teacher.backbone) not in published:
        known = ", ".join(sorted(f"{name} at {px} px" for px, name in published)) or "none"
        raise UsageError(
            f"teacher.weights zoo: GluonCV has no SSD on {teacher.backbone} at {size} px for these classes "
            f"(there are: {known}); name a .params file, or null and a stage that trains the teacher"
        )
    # Taps of one's own tell only on the network itself what maps they give.
    kinds = {FIRST_STRIDE.get(network.backbone, 16) for network in (teacher, student) if not network.taps}
    if recipe.trains("control", "distilled") and recipe.distill.head != "own" and len(kinds) > 1:
        raise UsageError(
            f"distill.head {recipe.distill.head}: SSDs on {teacher.backbone} and {student.backbone} "
            "differ in maps (one from stride 8 on, one from 16) and anchors; set distill.head: own"
        )
