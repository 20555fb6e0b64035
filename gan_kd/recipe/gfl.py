"""What a recipe can ask of GFL: facts that need no MXNet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gan_kd.errors import UsageError

if TYPE_CHECKING:
    from gan_kd.recipe.schema import Recipe

BACKBONES = (
    *(f"mobilenet{width}" for width in ("0.25", "0.5", "0.75", "1.0")),
    "mobilenetv2_1.0",
    *(f"resnet{layers}_v1" for layers in (18, 34, 50, 101)),
)
_STRIDE = 128  # px, of the coarsest level
#: Keys of a recipe's `gfl` that both networks share, as files of either have them.
SHARED = ("width", "convolutions", "groups", "reg_max", "short", "longest")
#: Why `export` cannot write it in a form, by form.
UNWRITTEN = {"int8": "as integers it is no faster, for GroupNorm stays in float32 between the convolutions"}


def check(recipe: Recipe) -> None:
    """UsageError for a GFL that cannot be."""
    settings = recipe.gfl
    if settings.width % settings.groups:
        raise UsageError(f"gfl.width {settings.width} is no multiple of gfl.groups {settings.groups}: change one")
    if settings.short is None and recipe.data.size < _STRIDE:
        raise UsageError(
            f"data.size {recipe.data.size} is below {_STRIDE} px, the stride of GFL's coarsest level: raise it"
        )
    if settings.short is not None and settings.longest < settings.short:
        raise UsageError(f"gfl.longest {settings.longest} is below gfl.short {settings.short}: raise it")
    for role, network in (("teacher", recipe.teacher), ("student", recipe.student)):
        if network.taps:
            raise UsageError(f"{role}.taps: GFL takes the backbone's maps of stride 8, 16 and 32; set them to null")
    for name, stage in recipe.stages.items():
        if "outputs" in stage.distillers:
            raise UsageError(
                f"stages.{name}: the distiller outputs compares a softmax with background and boxes as offsets, but "
                "GFL has neither: take localization, whose kd compares classes"
            )
    if recipe.needs_teacher and recipe.teacher.weights == "zoo":
        raise UsageError("teacher.weights zoo: GluonCV has no GFL; name a .params file, or null and train the teacher")
