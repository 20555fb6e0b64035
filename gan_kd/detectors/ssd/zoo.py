"""SSDs by name: backbones with their taps and anchors, first weights, and GluonCV's trained detectors."""

from __future__ import annotations

import contextlib
import difflib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mxnet as mx
from gluoncv.data import COCODetection
from gluoncv.model_zoo import get_model, get_model_list
from gluoncv.model_zoo.ssd import SSD, get_ssd, vgg16_atrous_300, vgg16_atrous_512
from gluoncv.model_zoo.ssd.anchor import SSDAnchorGenerator
from gluoncv.model_zoo.ssd.resnet_v1b_ssd import resnet34_v1b_ssd
from mxnet.gluon import HybridBlock

from gan_kd.detectors import taps as stages
from gan_kd.detectors.ssd.extractor import infer_shapes
from gan_kd.detectors.store import weights_file
from gan_kd.errors import UsageError
from gan_kd.gluon import weights
from gan_kd.gluon.initial import initialise
from gan_kd.recipe.backbones import BY_STRIDE

_MOBILENET = ["relu22_fwd", "relu26_fwd"]
# The maps of stride 16 and 32 (resnet152_v2: 8 too) by their names in the backbone. Where GluonCV's zoo has
# the SSD they are the zoo's, for resnet101_v2 inner activations; where not, the paper does not say: the
# ends of the stages.
_TAPS = {
    "mobilenet0.25": _MOBILENET,
    "mobilenet0.5": _MOBILENET,
    "mobilenet0.75": _MOBILENET,
    "mobilenet1.0": _MOBILENET,
    "mobilenetv2_1.0": ["features_linearbottleneck13_relu60_relu6", "features_relu61_relu6"],
    "resnet18_v1": ["stage3_activation1", "stage4_activation1"],
    "resnet50_v1": ["stage3_activation5", "stage4_activation2"],
    "resnet101_v2": ["stage3_activation22", "stage4_activation2"],
    "resnet152_v2": ["stage2_activation7", "stage3_activation35", "stage4_activation2"],
}
_EXTRA_LAYERS = [512, 512, 256, 256]
# px: below, the first map has less than 4x4 cells; above, it has more cells than GluonCV allocates anchors
# for, which are 128x128.
_SMALLEST, _LARGEST, _MOST_CELLS = 64, 1024, 128


class _Anchors(NamedTuple):
    """Sizes in px, map i from sizes[i] to sizes[i + 1]; `wide` maps have five aspect ratios, others three."""

    sizes: list[float]
    wide: int = 3

    @property
    def ratios(self) -> list[list[float]]:
        """Aspect ratios of each map: the first and the last two are not wide."""
        three, five = [1, 2, 0.5], [1, 2, 0.5, 3, 1.0 / 3]
        return [three] + [five] * self.wide + [three] * 2


# For an input of 512 px, but _300 and _300_COCO.
_SIX_MAPS = _Anchors([51.2, 102.4, 189.4, 276.4, 363.52, 450.6, 492])
_SIX_MAPS_COCO = _Anchors([51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72])
_SEVEN_MAPS = _Anchors([51.2, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6], wide=4)
_300 = _Anchors([30, 60, 111, 162, 213, 264, 315])
_300_COCO = _Anchors([21, 45, 99, 153, 207, 261, 315])


class _Fixed(NamedTuple):
    """A backbone with extra layers of its own, which fit one input size; `steps` is px between anchors."""

    features: Callable[..., HybridBlock]
    steps: list[int]
    anchors: _Anchors
    anchors_coco: _Anchors


_FIXED = {
    ("vgg16_atrous", 300): _Fixed(vgg16_atrous_300, [8, 16, 32, 64, 100, 300], _300, _300_COCO),
    ("vgg16_atrous", 512): _Fixed(vgg16_atrous_512, [8, 16, 32, 64, 128, 256, 512], _SEVEN_MAPS, _SEVEN_MAPS),
    ("resnet34_v1b", 300): _Fixed(resnet34_v1b_ssd, [8, 16, 32, 64, 100, 300], _300_COCO, _300_COCO),
}


def backbones() -> list[str]:
    """Names that `build` takes."""
    return sorted({*_TAPS, *(name for name, _ in _FIXED), *BY_STRIDE})


def taps_of(backbone: str, taps: Sequence[str] | None = None) -> list[str] | None:
    """The taps that `build` uses: the given ones, the established ones, or those found by stride; None for VGG's kind.

    Raises UsageError for an unknown backbone.
    """
    if backbone not in backbones():
        raise UsageError(f"unknown backbone '{backbone}'{_nearest(backbone, backbones())}")
    if backbone not in (*_TAPS, *BY_STRIDE):
        if taps:
            raise UsageError(f"{backbone} has extra layers of its own and takes no taps; set them to null")
        return None
    return list(taps or _TAPS.get(backbone) or stages.found(backbone))


def zoo_names() -> list[str]:
    """Names of the SSDs in GluonCV's zoo that have a class list of their own and are not quantised."""
    return [name for name in get_model_list() if name.startswith("ssd_") and name.endswith(("_voc", "_coco"))]


def build(
    backbone: str,
    size: int,
    classes: Sequence[str],
    init: str = "random",
    prefix: str | None = None,
    taps: Sequence[str] | None = None,
) -> SSD:
    """GluonCV SSD on a backbone for a square input of `size` px, all parameters initialised on the CPU.

    At 512 px (vgg16_atrous and resnet34_v1b: 300) it is the network of GluonCV's zoo, where the zoo has it,
    with the zoo's anchors for COCO if the classes are COCO's, else for VOC. At other sizes the anchors of
    512 px are scaled and centred on the cells; below 250 px the small ones are larger than that. The number
    of maps does not depend on the size: the six of 128 px have 8, 4, 2, 1, 1, 1 cells a side. The zoo's own
    mobilenet0.25 at 300 px sets its anchors 8 px apart on cells of 16, so that they cover a quarter of the
    image; it is here as a trained detector only.

    init: 'random' (He; follows mx.random.seed), 'imagenet' (GluonCV's download), or the path of a .params
    file with the backbone's parameters as GluonCV names them; a classifier may be absent.
    prefix: of the names of parameters in this process, unique by default; files do not hold it.
    taps: two or three outputs of the backbone that become the first maps, from large to small, by their names in its
    graph; None: `taps_of` has them.
    Raises UsageError for an unknown backbone or tap, an impossible size or a wrong file, RunError if a download
    fails.
    """
    net = assemble(backbone, size, classes, prefix, taps)
    initialise(net.collect_params().values())
    if init != "random":
        _load_backbone(net, backbone, size, weights_file(backbone) if init == "imagenet" else init)
    return net


def assemble(
    backbone: str,
    size: int,
    classes: Sequence[str],
    prefix: str | None = None,
    taps: Sequence[str] | None = None,
) -> SSD:
    """What `build` gives, with the shapes of all parameters but no values in them."""
    with _quiet():
        net = _assemble(backbone, size, list(classes), prefix, taps_of(backbone, taps))
    _set_shapes(net, size)
    return net


def without_backbone(
    backbone: str,
    size: int,
    classes: Sequence[str],
    taps: Sequence[str] | None,
    channels: Sequence[int],
    sides: Sequence[int],
) -> SSD:
    """What `build` gives from random weights, but for the backbone, in whose place is nothing: predictors and anchors.

    channels, sides: of the maps of the backbone with its extra layers. It costs what a head costs.
    """
    tapped = taps_of(backbone, taps)
    anchors = _anchors(backbone, size, classes, len(tapped or ()), sides)
    common = {"classes": list(classes), "dataset": "", "pretrained_base": False}
    net = get_ssd("", size, _NoLayers, None, **anchors, **common)
    _set_predictors(net, channels)
    initialise(net.collect_params().values())
    return net


def load_zoo_detector(name: str) -> SSD:
    """A trained SSD of GluonCV's zoo ('ssd_512_resnet50_v1_voc') on the CPU, downloaded at its first use.

    Raises UsageError for a name without weights in the zoo, RunError if the download fails.
    """
    if name not in zoo_names():
        raise UsageError(f"GluonCV's zoo has no detector '{name}'{_nearest(name, zoo_names())}")
    path = weights_file(name)
    weights.read(path, name)
    with _quiet():
        net = get_model(name, pretrained=False, pretrained_base=False)
    net.load_parameters(path, ctx=mx.cpu())
    return net


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without MXNet's warning that GluonCV leaves the input's type open: float32 is assumed, and right."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cannot decide type")
        yield


def _assemble(backbone: str, size: int, classes: list[str], prefix: str | None, taps: list[str] | None) -> SSD:
    _check(backbone, size)
    common = {"classes": classes, "dataset": "", "pretrained_base": False, "prefix": prefix}
    if taps is None:
        features: Any = _FIXED[backbone, size].features
        anchors = _anchors(backbone, size, classes, 0, [])
        with _remembered_anchors():
            return get_ssd(backbone, size, features, None, **anchors, **common)
    anchors = _anchors(backbone, size, classes, len(taps), _sides(backbone, taps, size))
    with _remembered_anchors():
        return get_ssd(backbone, size, taps, _EXTRA_LAYERS, **anchors, **common)


@contextlib.contextmanager
def _remembered_anchors() -> Iterator[None]:
    """GluonCV makes the 128x128 anchors of each map in a Python loop, most of an SSD's building: once a process."""
    SSDAnchorGenerator._generate_anchors = lambda _, sizes, ratios, *rest: _generated(sizes, tuple(ratios), *rest)
    try:
        yield
    finally:
        SSDAnchorGenerator._generate_anchors = _generate


_generate = SSDAnchorGenerator._generate_anchors


@functools.lru_cache(maxsize=64)
def _generated(*arguments: Any) -> Any:
    return _generate(None, *arguments)


def _anchors(backbone: str, size: int, classes: Sequence[str], taps: int, sides: Sequence[int]) -> dict[str, Any]:
    """GluonCV's sizes, ratios and steps for maps of these sides, the first ones tapped; no taps: VGG's kind."""
    coco = tuple(classes) == tuple(COCODetection.CLASSES)
    if not taps:
        fixed = _FIXED[backbone, size]
        anchors = fixed.anchors_coco if coco else fixed.anchors
        return {"sizes": anchors.sizes, "ratios": anchors.ratios, "steps": fixed.steps}
    six = _SIX_MAPS_COCO if coco and backbone == "resnet50_v1" else _SIX_MAPS
    anchors = six if taps == 2 else _SEVEN_MAPS
    sizes = _scaled(anchors.sizes, size, size / sides[0])
    return {"sizes": sizes, "ratios": anchors.ratios, "steps": [size / side for side in sides]}


class _NoLayers(HybridBlock):
    """In the place of a backbone of which only the head is wanted."""

    def __init__(self, **_: Any) -> None:
        super().__init__()


def _set_predictors(net: SSD, channels: Sequence[int]) -> None:
    for each, *predictors in zip(channels, net.class_predictors, net.box_predictors):
        for predictor in predictors:
            weight = predictor.predictor.weight
            weight.shape = (weight.shape[0], each, *weight.shape[2:])


def _scaled(sizes: list[float], size: int, step: float) -> list[float]:
    """Anchor sizes of 512 px for another input, the smallest at least 1.6 cells wide, the largest in proportion.

    step: width of a cell of the first map in px. Cells keep their px when the input shrinks: in proportion alone
    the smallest anchors at 128 px would be 0.8 cells wide, and most objects would meet none with an IoU of 0.5.
    """
    low = max(sizes[0] * size / 512, 1.6 * step)
    stretch = (sizes[-1] * size / 512 - low) / (sizes[-1] - sizes[0])
    return [low + (anchor - sizes[0]) * stretch for anchor in sizes]


def _check(backbone: str, size: int) -> None:
    if backbone in _TAPS or backbone in BY_STRIDE:
        if not _SMALLEST <= size <= _LARGEST:
            raise UsageError(f"{backbone} takes an input of {_SMALLEST} to {_LARGEST} px, not {size}")
    elif (backbone, size) not in _FIXED:
        sizes = " or ".join(str(side) for name, side in _FIXED if name == backbone)
        raise UsageError(f"{backbone} takes an input of {sizes} px, not {size}")


def _sides(backbone: str, taps: Sequence[str], size: int) -> list[int]:
    """Sides of the maps: those tapped, then each extra layer halves, rounding up."""
    sides = [side for _, side in stages.shapes(backbone, taps, size)]
    if len(sides) not in (2, 3) or sides != sorted(set(sides), reverse=True) or sides[0] > _MOST_CELLS:
        found = ", ".join(f"{tap} {side}x{side}" for tap, side in zip(taps, sides))
        raise UsageError(
            f"taps of {backbone} are two or three maps from large to small, the first of at most "
            f"{_MOST_CELLS}x{_MOST_CELLS} cells; at {size} px there are {found}"
        )
    for _ in _EXTRA_LAYERS:
        sides.append(-(-sides[-1] // 2))
    return sides


def _set_shapes(net: SSD, size: int) -> None:
    """Completes the shapes of all parameters, so that no initialisation waits for a first batch."""
    shapes, maps = infer_shapes(net.features, size)
    for name, parameter in net.features.collect_params().items():
        if name in shapes:
            parameter.shape = shapes[name]
    _set_predictors(net, [channels for _, channels, _, _ in maps])


def _load_backbone(net: SSD, backbone: str, size: int, path: str | Path) -> None:
    """Sets the backbone's part of an SSD from a .params file of the backbone, all that the SSD uses of it."""
    what = f"the backbone {backbone}"
    arrays = weights.read(path, what)
    # Made in a scope of its own, the backbone names its parameters as it does inside of the SSD.
    scope = HybridBlock(prefix="scope_")
    with scope.name_scope():
        fixed = backbone == "vgg16_atrous"
        source = _FIXED[backbone, size].features() if fixed else get_model(backbone, pretrained=False)
    named = source._collect_params_with_prefix()
    arrays = weights.renamed(named, arrays)
    inside = net.features.collect_params()
    twins = {name: net.prefix + parameter.name[len(scope.prefix) :] for name, parameter in named.items()}
    targets = {
        name: inside[twin] for name, twin in twins.items() if twin in inside and (name in arrays or not _is_extra(twin))
    }
    used = {name: array for name, array in arrays.items() if name in targets or name not in named}
    weights.assign(targets, used, path, what)


def _is_extra(name: str) -> bool:
    """Whether a parameter is of what SSD adds to VGG16: the ImageNet file of vgg16_atrous may lack it."""
    return "_extra" in name or name.endswith(("normalize_scale", "init_scale"))


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; it is one of {', '.join(names)}"
