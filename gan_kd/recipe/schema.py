"""The typed recipe, the only input of a run: every knob with its unit, its default and its bounds.

A knob's documentation is metadata, so that `python -m gan_kd recipes --show NAME` prints it beside the value.
Types are plain: str, int, float, bool, None, lists of them, and further dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass

from gan_kd.recipe.faster_rcnn import FasterRCNN
from gan_kd.recipe.knob import knob, without_aliases
from gan_kd.recipe.methods import (
    Adaptation as Adaptation,  # a section within FineGrained's, whose type is looked up here
)
from gan_kd.recipe.methods import (
    BoundedRegression,
    CosineAttention,
    Cwd,
    FeatureImitation,
    FineGrained,
    Gan,
    Gfl,
    InformationMap,
    Localization,
    Optimizer,
    OutputImitation,
    RegionImitation,
    Schedule,
)
from gan_kd.recipe.yolo3 import Yolo3

_TAPS_DOC = "two or three outputs of the backbone that become the first maps; null: the last of stride 16 and of 32"
#: Distillation methods that come with the package.
DISTILLERS = (
    "gan",
    "cosine_attention",
    "feature_imitation",
    "fine_grained",
    "cwd",
    "information_map",
    "outputs",
    "localization",
    "region_imitation",
    "bounded_regression",
)


@dataclass(frozen=True)
class Published:
    """The row and column of a published table that this recipe reproduces."""

    table: int = knob("number of the paper's table", least=1, most=4)
    row: str = knob("student, as the table writes it")
    column: str = knob("teacher or method, as the table writes it")
    paper: str = knob(
        "whose table: gan_kd (arXiv 1906.08467), localization (arXiv 2102.12252) or localization_repository (its "
        "README, table 1: VOC)",
        "gan_kd",
        choices=("gan_kd", "localization", "localization_repository"),
    )

    def __str__(self) -> str:
        """As in 'table 1: MobileNetV1 <- ResNet50'."""
        of = "" if self.paper == "gan_kd" else f" of {self.paper}"
        return f"table {self.table}{of}: {self.row}" + (" alone" if self.column == "none" else f" <- {self.column}")


@dataclass(frozen=True)
class Demo:
    """Drawn data (data/demo.py), used where data.dataset is demo."""

    train: int = knob("images to draw for training", 600, least=1)
    test: int = knob("images to draw for the test", 200, least=1)
    seed: int = knob("seed of the drawing", 233, least=0)


@dataclass(frozen=True)
class Data:
    """Where the images and boxes are, and what is made of them."""

    dataset: str = knob(
        "layout: voc, coco, folder (any VOC-format folder) or demo (drawn into root)",
        "voc",
        choices=("voc", "coco", "folder", "demo"),
    )
    root: str = knob(
        "path; ~ is expanded, relative paths start at the current folder",
        "~/.mxnet/datasets/voc",
        in_hash=False,
    )
    train: list[str] = knob(
        "training splits: 2007/trainval (voc), train2017 (coco), train (folder, demo)",
        make=lambda: ["2007/trainval", "2012/trainval"],
    )
    val: list[str] = knob("test splits, written likewise", make=lambda: ["2007/test"])
    classes: str | list[str] = knob(
        "voc, coco, annotations (names found in train, sorted), a text file of names, or a list", "voc"
    )
    unknown_classes: str = knob(
        "a class that is not in the list: report (an error) or ignore", "report", choices=("report", "ignore")
    )
    on_error: str = knob("an image that the check refuses: stop or skip", "stop", choices=("stop", "skip"))
    augment: str = knob(
        "of training images: ssd (colours, expansion, crop, mirroring; as GluonCV) or flip (mirroring alone)",
        "ssd",
        choices=("ssd", "flip"),
    )
    holdout: int | None = knob(
        "train without every k-th training image and measure on those instead of val, to choose settings; null: not",
        None,
        least=2,
    )
    size: int = knob("side of the square network input, px", 512, least=64, most=2048)
    demo: Demo = knob("", make=Demo)


@dataclass(frozen=True)
class Teacher:
    """The large detector."""

    backbone: str = knob("network under the detector", "resnet50_v1")
    init: str = knob("backbone before training: imagenet (download), random, or a .params file", "imagenet")
    weights: str | None = knob(
        "trained detector: zoo (GluonCV's) or a .params file, teacher stages being dropped; or null", None
    )
    min_map: float = knob("no student is trained with a teacher below this mAP, %", 0.0, least=0, most=100)
    taps: list[str] | None = knob(_TAPS_DOC, None, in_hash=None)
    remember: float = knob(
        "memory for its predictions of training images that come again, where distillers compare predictions alone, "
        "GB a process; it needs data.augment flip; 0: none",
        0.0,
        least=0,
        in_hash=None,
    )


@dataclass(frozen=True)
class Student:
    """The small detector; baseline, head inheritance and distilled start from the same backbone."""

    backbone: str = knob("network under the detector", "mobilenet1.0")
    init: str = knob("backbone before training: imagenet (download), random, or a .params file", "imagenet")
    taps: list[str] | None = knob(_TAPS_DOC, None, in_hash=None)


@dataclass(frozen=True)
class Distill:
    """What the student learns from the teacher."""

    head: str = knob(
        "inherit (a trainable copy of the teacher's, behind adapters; for pretrained backbones), own, or untrained (as "
        "inherit, but weights drawn at random: what the layers alone give)",
        "inherit",
        choices=("inherit", "own", "untrained"),
        aliases={"teacher": "inherit", "student": "own"},
        hashed_as={"inherit": "teacher", "own": "student"},
    )
    neck: str = knob(
        "yolo3 only: own, or inherit (a trainable copy of the teacher's, where all channels agree)",
        "own",
        choices=("own", "inherit"),
        in_hash=None,
    )
    adapter: str = knob(
        "1x1 convolutions where channels differ: linear, or relu (the teacher's maps are activations, never negative)",
        "linear",
        choices=("linear", "relu"),
    )
    places: list[str] | None = knob(
        "where the compared maps stand: backbone, neck; null: as each method has it",
        None,
        choices=("backbone", "neck"),
        in_hash=None,
    )
    gan: Gan = knob("", make=Gan)
    cosine_attention: CosineAttention = knob("", make=CosineAttention)
    feature_imitation: FeatureImitation = knob("", make=FeatureImitation)
    fine_grained: FineGrained = knob("", make=FineGrained, in_hash=None)
    cwd: Cwd = knob("", make=Cwd, in_hash=None)
    information_map: InformationMap = knob("", make=InformationMap, in_hash=None)
    outputs: OutputImitation = knob("", make=OutputImitation, in_hash=None)
    localization: Localization = knob("", make=Localization, in_hash=None)
    region_imitation: RegionImitation = knob("", make=RegionImitation, in_hash=None)
    bounded_regression: BoundedRegression = knob("", make=BoundedRegression, in_hash=None)
    custom: dict[str, dict] = knob("keyword arguments of your own distillers, by dotted name", make=dict, in_hash=None)

    def __post_init__(self) -> None:
        without_aliases(self)


@dataclass(frozen=True)
class Stage:
    """A training of one network; later stages of the same network go on from it."""

    trains: str = knob(
        "teacher, baseline (student's own detector), inherit (head inheritance: adapters and the teacher's head, no "
        "distiller; files call it control), distilled",
        choices=("teacher", "baseline", "control", "distilled"),
        aliases={"inherit": "control"},
    )
    epochs: int = knob("passes over the training images", least=1)
    optimizer: Optimizer = knob("", make=Optimizer)
    schedule: Schedule = knob("", make=Schedule)
    distillers: list[str] = knob(
        "distilled only, their losses summed: gan, cosine_attention, feature_imitation, fine_grained, cwd, "
        "information_map, outputs, bounded_regression (GFL, SSD), of GFL localization and region_imitation, or your "
        "own: package.module.Class",
        make=list,
    )

    def __post_init__(self) -> None:
        without_aliases(self)


@dataclass(frozen=True)
class Train:
    """How the stages run."""

    batch_size: int = knob("images a step, over all contexts", 32, least=1)
    num_workers: int = knob("loader processes; 0 loads in the training process", 4, least=0, in_hash=False)
    worker_timeout: float = knob(
        "a loader process that makes nothing for so long while it is waited for has failed, s",
        120.0,
        above=0,
        in_hash=False,
    )
    on_worker_failure: str = knob(
        "a loader process that died or hangs: restart (it; the batches stay the same) or stop (the run, saved)",
        "restart",
        choices=("restart", "stop"),
        in_hash=False,
    )
    seed: int = knob("of weights, order and augmentation", 233, least=0, most=2**32 - 1)
    contexts: list[str] = knob("devices: gpu:0, gpu:1, ... or cpu:0, ...", make=lambda: ["cpu:0"], in_hash=False)
    sync_bn: bool = knob("BatchNorm over the whole batch of several contexts, not one by one", False, in_hash=None)
    amp: bool = knob("mixed precision: convolutions in float16, GPUs only; weights stay float32", False, in_hash=None)
    log_interval: int = knob("batches between log lines", 100, least=1, in_hash=False)
    val_interval: int = knob("epochs between evaluations; the last is always evaluated", 1, least=1)
    tensorboard: bool = knob("write TensorBoard's event files too", False, in_hash=False)
    keep: int = knob("checkpoints kept, beside the best parameters", 3, least=1, in_hash=False)


@dataclass(frozen=True)
class Eval:
    """How a network is measured."""

    metric: str = knob(
        "voc07 (11 points), voc10 (area under the curve) or coco (AP at 0.50:0.95)",
        "voc07",
        choices=("voc07", "voc10", "coco"),
    )
    iou: float = knob("overlap of a hit (voc07, voc10)", 0.5, above=0, most=1)
    batch_size: int = knob("images a forward pass, over all contexts", 32, least=1, in_hash=False)
    nms: float = knob("overlap above which the lower-scored box goes", 0.45, above=0, most=1)
    nms_topk: int = knob("boxes that enter suppression", 400, least=1)
    post_nms: int = knob("boxes that leave it", 100, least=1)


@dataclass(frozen=True)
class Recipe:
    """Everything a run is made of."""

    name: str = knob("of the folder under runs/ (default: the file's name)", in_hash=False)
    description: str = knob("what it trains, on one line", "", in_hash=False)
    published: Published | None = knob("place in the paper's tables, or null", None, in_hash=False)
    detector: str = knob("family of both networks: ssd, gfl, yolo3 or faster_rcnn", "ssd", in_hash=None)
    yolo3: Yolo3 = knob("", make=Yolo3, in_hash=None)
    faster_rcnn: FasterRCNN = knob("", make=FasterRCNN, in_hash=None)
    data: Data = knob("", make=Data)
    teacher: Teacher = knob("", make=Teacher)
    student: Student = knob("", make=Student)
    distill: Distill = knob("", make=Distill)
    gfl: Gfl = knob("", make=Gfl, in_hash=None)
    stages: dict[str, Stage] = knob("by name, in the order of training", make=dict)
    train: Train = knob("", make=Train)
    eval: Eval = knob("", make=Eval)

    def trains(self, *networks: str) -> bool:
        """Whether any stage trains one of these networks."""
        return any(stage.trains in networks for stage in self.stages.values())

    def distillers_of(self, network: str) -> list[str]:
        """The distillers of all stages that train a network, each once, sorted."""
        return sorted({name for stage in self.stages.values() if stage.trains == network for name in stage.distillers})

    @property
    def needs_teacher(self) -> bool:
        """Whether any stage trains the teacher or learns from it."""
        return self.trains("teacher", "control", "distilled")
