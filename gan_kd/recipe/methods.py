"""The keys of optimisers and of each distillation method; the rest of a recipe is in schema.py."""

from __future__ import annotations

from dataclasses import dataclass

from gan_kd.recipe.knob import knob


@dataclass(frozen=True)
class Optimizer:
    """MXNet's SGD or Adam."""

    name: str = knob("sgd or adam", "sgd", choices=("sgd", "adam"))
    lr: float = knob("learning rate", 0.001, above=0)
    momentum: float = knob("sgd only", 0.9, least=0, below=1)
    wd: float = knob("weight decay: L2 added to the gradient", 0.0005, least=0)
    beta1: float = knob("adam only: decay of the first moment", 0.5, least=0, below=1)
    beta2: float = knob("adam only: decay of the second moment", 0.999, least=0, below=1)
    clip_gradient: float | None = knob("gradient elements are clipped to +- this; null: not", None, above=0)


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a stage."""

    name: str = knob("step (x factor at each point) or cosine (to zero)", "step", choices=("step", "cosine"))
    at: list[float] = knob(
        "step only: fractions of the stage (below 1) or epochs (from 1 on)", make=lambda: [0.8], above=0
    )
    factor: float = knob("step only", 0.1, above=0, most=1)
    warmup_batches: int = knob("first batches over which the rate rises linearly from 0", 0, least=0)


@dataclass(frozen=True)
class Gan:
    """The adversary: D-Net and how it learns (paper, section 3); the keys that are not in the paper mend it."""

    weight: float = knob("of mean D(S(x)) in the student's loss", 1.0, least=0)
    slopes: str = knob(
        "gradient of D(S(x)) at a map: raw, or unit (scaled to norm 1 a sample, so that every map counts alike)",
        "raw",
        choices=("raw", "unit"),
    )
    kind: str = knob(
        "D scores a map as a whole (image, as the paper), each cell by its channels (cell), or takes the mean over 3x3 "
        "patches (patch)",
        "image",
        choices=("image", "cell", "patch"),
        in_hash=None,
    )
    condition: str = knob(
        "D sees a map alone (none, as the paper) or beside the teacher's of the same image (teacher)",
        "none",
        choices=("none", "teacher"),
        in_hash=None,
    )
    loss: str = knob("of D: wgan or hinge", "wgan", choices=("wgan", "hinge"), in_hash=None)
    limit: str = knob(
        "what holds D: clamp (of its weights), spectral (norms of 1 by projection), penalty (WGAN-GP) or none",
        "clamp",
        choices=("clamp", "spectral", "penalty", "none"),
        in_hash=None,
    )
    penalty: float = knob("limit penalty only: its weight", 10.0, above=0, in_hash=None)
    input: str = knob(
        "maps that D sees: raw, or standard (each channel by the teacher's mean and deviation)",
        "raw",
        choices=("raw", "standard"),
        in_hash=None,
    )
    match: float = knob("of the L1 distance of D's hidden layers on S(x) and T(x), paired", 0.0, least=0, in_hash=None)
    width: int = knob("channels of each D-Net", 512, least=1)
    norm: str = knob(
        "normalisation in D-Net but its first block; joint: BatchNorm over teacher's and student's maps together",
        "batch",
        choices=("batch", "instance", "none", "joint"),
    )
    clamp: float = knob("limit clamp only: D's weights stay within +- this", 0.03, above=0)
    critic_steps: int = knob("D steps for each student step; 0: D stays as it was drawn", 1, least=0)
    warmup_epochs: int = knob("epochs before the stage's own in which D alone learns, at its first rate", 0, least=0)
    critic_only_epochs: int = knob(
        "first epochs of the stage in which D learns while the student trains on detection alone",
        0,
        least=0,
        in_hash=None,
    )
    optimizer: Optimizer = knob("", make=lambda: Optimizer("adam", lr=0.0005, wd=0.0))
    schedule: Schedule = knob("", make=Schedule)


@dataclass(frozen=True)
class CosineAttention:
    """1 - cosine similarity of attention maps (our reading; the paper names it only)."""

    weight: float = knob("in the student's loss", 1.0, least=0)


@dataclass(frozen=True)
class FeatureImitation:
    """Squared distance of the maps, the simplest rival of an adversary (not in the paper)."""

    weight: float = knob("in the student's loss", 1.0, least=0)
    input: str = knob(
        "maps that are compared: raw, or standard (each channel by the teacher's mean and deviation)",
        "raw",
        choices=("raw", "standard"),
        in_hash=None,
    )


@dataclass(frozen=True)
class Adaptation:
    """The layer behind the student's maps that serves Fine-grained Feature Imitation alone."""

    kernel: int = knob("side of its convolution, odd", 3, least=1, most=7)
    relu: bool = knob("a ReLU behind it; false where the teacher's maps go below 0", True)
    sigma: float = knob("deviation of its first weights", 1e-4, above=0)


@dataclass(frozen=True)
class FineGrained:
    """Fine-grained Feature Imitation (arXiv 1906.03609): squared distance of the maps in the cells near objects."""

    weight: float = knob("in the student's loss (lambda)", 0.01, least=0)
    threshold: float = knob(
        "a cell counts whose anchors overlap an object by more than this times the best anchor (psi)",
        0.5,
        least=0,
        most=1,
    )
    scope: str = knob(
        "the best anchor: of all maps (union), or of each map (per_map)", "union", choices=("union", "per_map")
    )
    inclusive: bool = knob("IoU of whole pixels, corners included, as in py-faster-rcnn", False)
    normaliser: str = knob(
        "the sum of squares is divided by 2 x the cells that count in the batch (cells), or their elements (elements)",
        "cells",
        choices=("cells", "elements"),
    )
    adapter: Adaptation = knob("", make=Adaptation)
    quiet: int = knob("first batches of the stage in which its loss counts 0", 400, least=0)


@dataclass(frozen=True)
class Cwd:
    """KL divergence of each channel's distribution over the cells (channel-wise distillation)."""

    weight: float = knob("in the student's loss", 1.0, least=0)
    temperature: float = knob("that the maps are divided by", 1.0, above=0)


@dataclass(frozen=True)
class InformationMap:
    """Relative error of the maps, weighted by where the teacher's hold most (our reading of an abstract)."""

    weight: float = knob("in the student's loss", 1.0, least=0)
    weighting: str = knob(
        "of the cells, by the teacher's map: energy (mean square of the channels), softmax (of their mean magnitude), "
        "objectness (yolo3 only: what its head is surest of there) or none (plain imitation)",
        "energy",
        choices=("energy", "softmax", "objectness", "none"),
    )
    power: float = knob("of the energy", 1.0, least=0)


@dataclass(frozen=True)
class OutputImitation:
    """The head's predictions at equal anchors: KL divergence of classes, smooth L1 of boxes."""

    weight: float = knob("in the student's loss", 1.0, least=0)
    boxes: float = knob("of the boxes beside the classes", 1.0, least=0)
    temperature: float = knob("that class logits are divided by", 1.0, above=0)


@dataclass(frozen=True)
class Gfl:
    """Neck, head and training of a GFL detector, of teacher and student alike."""

    width: int = knob("channels of the pyramid's levels and of the head", 256, least=1)
    convolutions: int = knob("in each of the head's towers", 4, least=1)
    groups: int = knob("of GroupNorm in the towers", 32, least=1)
    reg_max: int = knob("an edge is a distribution over 0..this strides of its level", 16, least=1)
    short: int | None = knob(
        "shorter side of the input, px, where images keep their aspect ratio; null: squares of data.size",
        None,
        least=128,
    )
    longest: int = knob("gfl.short only: the longer side is this at most, px", 1333, least=128)
    freeze: bool = knob(
        "stem and first stage keep their weights and BatchNorm its statistics, for 2 or 3 images a device", False
    )


@dataclass(frozen=True)
class EdgeDistillation:
    """LD: the distributions of box edges. Terms of weight 0 are off."""

    main: float = knob("weight in the main region, the positive priors", 0.25, least=0)
    vlr: float = knob("weight in the valuable localization region (the published 0.25 / 4)", 0.0625, least=0)
    temperature: float = knob("that box logits are divided by", 10.0, above=0)
    reference: float = knob(
        "images whose sum LD is, whatever the batch: the published program adds up a device's batch, 2 images of COCO",
        2.0,
        above=0,
    )


@dataclass(frozen=True)
class ClassDistillation:
    """KD: the distributions over classes, a mean over a region's priors on each level. Terms of weight 0 are off."""

    main: float = knob("weight in the main region", 1.0, least=0)
    vlr: float = knob("weight in the valuable localization region", 0.0, least=0)
    temperature: float = knob("that class logits are divided by", 2.0, above=0)
    coefficient: float = knob(
        "of the plain divergence: published is 40 / classes, which is 0.5 for COCO and 2 for VOC", 0.5, least=0
    )


@dataclass(frozen=True)
class ValuableRegion:
    """VLR: where the student learns edges beside the positive priors."""

    gamma: float = knob("share of an object's ATSS threshold from which its region begins", 0.25, least=0, most=1)
    overlap: str = knob(
        "what the intersection with an object is divided by: prior (its area, as the published program), union (DIoU, "
        "as the paper)",
        "prior",
        choices=("prior", "union"),
    )
    weight: str = knob(
        "what a prior counts: iou (with its object, as the published program) or one (as the paper)",
        "iou",
        choices=("iou", "one"),
    )


@dataclass(frozen=True)
class Localization:
    """Localization Distillation of GFL (arXiv 2102.12252): four terms, two regions."""

    ld: EdgeDistillation = knob("distillation of the boxes' edges", make=EdgeDistillation)
    kd: ClassDistillation = knob("distillation of the classes", make=ClassDistillation)
    vlr: ValuableRegion = knob("valuable localization region", make=ValuableRegion)


@dataclass(frozen=True)
class RegionImitation:
    """Squared difference of the pyramid's maps in a region (GFL): rivals of localization distillation."""

    weight: float = knob("in the student's loss", 2.0, least=0)
    region: str = knob(
        "cells that count: whole (all), inside (an object's box), main (positive priors), fine_grained, general "
        "(where the networks' scores differ most)",
        "fine_grained",
        choices=("whole", "inside", "main", "fine_grained", "general"),
    )


@dataclass(frozen=True)
class BoundedRegression:
    """The box loss of positive priors where the student's box is not better than the teacher's (GFL, SSD)."""

    weight: float = knob("beside the detector's own box loss: GFL's of GIoU, SSD's smooth L1", 1.0, least=0)
    margin: float = knob("by which the student has to be better, in this loss of one prior", 0.1, least=0)
