"""The detectors that recipes can name: where their functions are, and what is known of them without MXNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from gan_kd.recipe import faster_rcnn, gfl, ssd, yolo3

if TYPE_CHECKING:
    from gan_kd.recipe.schema import Recipe


class Facts(NamedTuple):
    """A family: one entry here, and a module as `gan_kd.detectors.families.Family` describes it."""

    #: For readers.
    name: str
    #: Of the family's functions.
    module: str
    backbones: tuple[str, ...]
    #: Raises UsageError for what the family cannot do.
    check: Callable[[Recipe], None]
    #: Where its maps stand, as `Level.place`.
    places: tuple[str, ...] = ("neck",)
    #: What it can give distillers beside maps and truth, as `Distiller.needs`. "priors": `assigned` has GFL's `Share`,
    #: outputs are distributions of box edges, and every cell of the neck's maps is one prior.
    gives: tuple[str, ...] = ("outputs",)
    #: Whether inputs differ in size, and with them the maps, whatever the recipe.
    any_size: bool = False
    #: px that the shorter side of a training image has in the input, at least.
    shortest: int = 1
    #: Why `export` cannot write it in a form, by form.
    unwritten: Mapping[str, str] = {}
    #: Whether a student can have the teacher's neck (`distill.neck`).
    lends_neck: bool = False


#: The family of recipes and files that name none.
OLDEST = "ssd"
#: By the recipe's word.
FAMILIES = {
    "ssd": Facts(
        "SSD", "gan_kd.detectors.ssd.family", ssd.BACKBONES, ssd.check, gives=("outputs", "assigned", "anchors")
    ),
    "gfl": Facts(
        "GFL",
        "gan_kd.detectors.gfl.family",
        gfl.BACKBONES,
        gfl.check,
        places=("backbone", "neck"),
        gives=("outputs", "assigned", "priors"),
        unwritten=gfl.UNWRITTEN,
    ),
    "yolo3": Facts(
        "YOLOv3",
        "gan_kd.detectors.yolo3.family",
        yolo3.BACKBONES,
        yolo3.check,
        places=("backbone", "neck"),
        gives=("outputs", "anchors"),
        lends_neck=True,
        unwritten=yolo3.UNWRITTEN,
    ),
    "faster_rcnn": Facts(
        "Faster R-CNN",
        "gan_kd.detectors.faster_rcnn.family",
        faster_rcnn.BACKBONES,
        faster_rcnn.check,
        places=("backbone",),
        gives=("anchors",),
        any_size=True,
        shortest=faster_rcnn.SHORTEST,
        unwritten=faster_rcnn.UNWRITTEN,
    ),
}
