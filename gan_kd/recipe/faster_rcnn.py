"""What a recipe can ask of Faster R-CNN: its section, and facts that need no MXNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gan_kd.errors import UsageError
from gan_kd.recipe.knob import knob

if TYPE_CHECKING:
    from gan_kd.recipe.schema import Recipe

#: Classifiers of GluonCV with a map of stride 16 whose sides round up, followed by layers of stride 32.
BACKBONES = (
    "mobilenet0.25", "mobilenet0.5", "mobilenet0.75", "mobilenet1.0", "mobilenetv2_0.25", "mobilenetv2_0.5",
    "mobilenetv2_0.75", "mobilenetv2_1.0", "resnet18_v1", "resnet34_v1", "resnet50_v1", "resnet101_v1", "resnet152_v1",
    "resnet18_v2", "resnet34_v2", "resnet50_v2", "resnet101_v2", "resnet152_v2", "resnet18_v1b", "resnet34_v1b",
    "resnet50_v1b", "resnet101_v1b", "resnet152_v1b", "resnet50_v1c", "resnet101_v1c", "resnet152_v1c", "resnet50_v1d",
    "resnet101_v1d", "resnet152_v1d", "resnet50_v1s", "resnet101_v1s", "resnet152_v1s",
)  # fmt: skip

_STRIDE = 16  # px of the image that a cell of the map stands for
_ASPECT = 5 / 3  # of the longest input: 600 and 1000 px for VOC, 800 and 1333 for COCO
#: Cells of an input's shorter side, at least: D-Net halves a map twice, and a smaller one has hardly any anchor.
FEWEST_CELLS = 4
#: px of the shorter side for so many cells.
SHORTEST = (FEWEST_CELLS - 1) * _STRIDE + 1
#: Why it is not exported so.
UNWRITTEN = {
    "onnx": "MXNet's converter takes the anchors that enter suppression for those that leave it: other proposals",
    "int8": "MXNet quantises from the image to the predictions, and the choice of regions stands between",
}


@dataclass(frozen=True)
class FasterRCNN:
    """Faster R-CNN; data.size is the shorter side of the input, the longer one is at most 5/3 of it."""

    roi: str = knob("what gives each region its cells: align or pool", "align", choices=("align", "pool"))
    roi_size: int = knob("cells a side of a region", 14, least=2, most=32)
    scales: list[float] = knob("sides of anchors, in cells of 16 px", make=lambda: [2.0, 4.0, 8.0, 16.0, 32.0], above=0)
    border: float | None = knob(
        "px by which an anchor that the RPN learns from may leave the image; null: any (small images have none inside)",
        0.0,
        least=0,
    )
    rpn_channels: int = knob("of the RPN's convolution", 1024, least=1)
    rpn_samples: int = knob("anchors of an image that the RPN learns from", 256, least=2)
    min_size: int = knob("side below which a proposal is dropped, px", 16, least=1)
    train_proposals: int = knob("of an image in training, that regions are drawn from", 2000, least=1)
    test_proposals: int = knob("of an image in detection", 300, least=1)
    samples: int = knob("regions of an image that the classes learn from, a quarter of them objects", 128, least=4)
    frozen: str = knob(
        "what no stage trains: published (the layers up to stride 4 and BatchNorm) or statistics (BatchNorm's alone)",
        "published",
        choices=("published", "statistics"),
    )


def longest(size: int) -> int:
    """px of the longer side of an input, at most, whose shorter side has `size`."""
    return int(size * _ASPECT)


def check(recipe: Recipe) -> None:
    """UsageError for a Faster R-CNN that cannot be, or for what this family does not do."""
    own, size = recipe.faster_rcnn, recipe.data.size
    for role, network in (("teacher", recipe.teacher), ("student", recipe.student)):
        if network.taps:
            raise UsageError(f"{role}.taps: a Faster R-CNN has one map, that of stride 16; set them to null")
    if recipe.teacher.weights == "zoo":
        raise UsageError("teacher.weights zoo: Faster R-CNN loads no detector of GluonCV's zoo; name its .params file")
    if recipe.train.sync_bn:
        raise UsageError(
            "train.sync_bn: Faster R-CNN never moves BatchNorm's statistics, so there is nothing to synchronise: leave "
            "--syncbn out"
        )
    for name, stage in recipe.stages.items():
        if "outputs" in stage.distillers:
            raise UsageError(
                f"stages.{name}: the distiller outputs compares predictions anchor by anchor, but regions of student "
                "and teacher are others: take one that compares maps"
            )
    if recipe.data.augment != "flip":
        raise UsageError("data.augment ssd is SSD's augmentation; Faster R-CNN mirrors alone: set it to flip")
    if not own.scales:
        raise UsageError("faster_rcnn.scales is empty: name at least one")
    cells = -(-size // _STRIDE)
    if cells < FEWEST_CELLS:
        raise UsageError(f"data.size {size} gives a map of {cells} cells; Faster R-CNN needs {FEWEST_CELLS} or more")
    named = {name for stage in recipe.stages.values() for name in stage.distillers}
    if "gan" in named and (recipe.distill.gan.norm, recipe.distill.gan.kind) == ("instance", "image") and cells < 8:
        # Two blocks halve the map, and the norm of a single cell is a constant.
        raise UsageError(
            f"distill.gan.norm instance blinds D where a map has fewer than 8 cells a side, as data.size {size} gives: "
            "set it to none"
        )
    if own.border is not None:
        smallest = min(own.scales) * _STRIDE
        if smallest > size + 2 * own.border:
            raise UsageError(
                f"faster_rcnn.border {own.border:g}: no anchor of {smallest:g} px or more lies inside of an image of "
                f"{size} px; set smaller scales, or border: null"
            )
    anchors = cells * cells * 3 * len(own.scales)
    for key in ("train_proposals", "test_proposals"):
        if getattr(own, key) > anchors:
            raise UsageError(
                f"faster_rcnn.{key} {getattr(own, key)} is above the {anchors} anchors of the smallest image, "
                f"{size}x{size} px"
            )
