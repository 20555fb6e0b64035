"""The networks of a recipe: the teacher, and a student as baseline, with an inherited head alone, or distilled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from gan_kd.detectors.adapters import Adapters, pair_maps, require_equal_sizes
from gan_kd.detectors.saved import HEADS, load_detector
from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.head import new_head, untrained_head
from gan_kd.detectors.ssd.network import Detector, join, split
from gan_kd.distill import custom
from gan_kd.distill.base import Compared, Distiller
from gan_kd.distill.cosine_attention import CosineAttention
from gan_kd.distill.cwd import ChannelWise
from gan_kd.distill.feature_imitation import FeatureImitation
from gan_kd.distill.gan import GanDistiller
from gan_kd.distill.outputs import OutputImitation
from gan_kd.errors import RunError, UsageError
from gan_kd.recipe import Recipe, Stage, network_in_words
from gan_kd.recipe.schema import DISTILLERS
from gan_kd.training.step import Networks


def seed_everything(seed: int) -> None:
    """Start MXNet's and NumPy's generators, from which initial weights are drawn."""
    mx.random.seed(seed)
    np.random.seed(seed)


def fetch_weights(recipe: Recipe) -> None:
    """Download what the recipe starts from, where it is not there yet. RunError, naming all of it, where that fails."""
    names = {zoo_name(recipe)} if recipe.needs_teacher and recipe.teacher.weights == "zoo" else set()
    for network, role in (
        (recipe.teacher, ("teacher",)),
        (recipe.student, ("baseline", "control", "distilled")),
    ):
        if recipe.trains(*role) and network.init == "imagenet":
            names.add(network.backbone)
    problems = []
    for name in sorted(names):
        try:
            zoo.weights_file(name)
        except RunError as error:
            problems.append(str(error))
    if problems:
        raise RunError("; ".join(problems))


def zoo_name(recipe: Recipe) -> str:
    """GluonCV's name of the recipe's teacher."""
    dataset = "coco" if recipe.data.classes == "coco" else "voc"
    return f"ssd_{recipe.data.size}_{recipe.teacher.backbone}_{dataset}"


def require_teacher_file(recipe: Recipe, classes: Sequence[str], folder: Path) -> None:
    """UsageError where the run in `folder` could not use teacher.weights: found now, not after the student's baseline.

    A run that has its teacher already no longer reads them.
    """
    named = recipe.teacher.weights not in (None, "zoo")
    if named and recipe.needs_teacher and not (folder / "teacher" / "best.params").exists():
        build_teacher(recipe, classes)


def require_good_teacher(recipe: Recipe, map_: float) -> None:
    """RunError where a teacher's mAP, %, is below teacher.min_map, or nan, which nothing can be said of."""
    if map_ >= recipe.teacher.min_map:
        return
    fault = f"is below teacher.min_map {recipe.teacher.min_map:g}: were its weights loaded"
    if np.isnan(map_):
        fault = "is no number: do the validation images hold an object that counts"
    raise RunError(
        f"the teacher's mAP of {map_:.2f} {fault}, and are these its classes and data? A student is not trained from it"
    )


def require_fitting_head(recipe: Recipe, classes: Sequence[str]) -> None:
    """UsageError, before any training, where student and teacher need the same maps and anchors and have others.

    Through another head's anchors the student would learn from other targets than its baseline does, and predictions
    could not be compared one by one.
    """
    named = [name for stage in recipe.stages.values() for name in stage.distillers]
    compared = next((name for name in named if "outputs" in _needs(recipe, name)), None)
    taken = recipe.distill.head != "own" and recipe.trains("control", "distilled")
    if not taken and compared is None:
        return
    (student, own), (teacher, lent) = (
        split(zoo.assemble(network.backbone, recipe.data.size, classes, taps=network.taps))
        for network in (recipe.student, recipe.teacher)
    )
    if taken:
        require_equal_sizes(student, teacher)
    # As shapes alone the networks have no parameters to read, but constants know their value.
    pairs = zip(own.allocated, lent.allocated)
    if student.sizes == teacher.sizes and all(
        np.array_equal(one.value.asnumpy(), other.value.asnumpy()) for one, other in pairs
    ):
        return
    what, way = f"distill.head {recipe.distill.head}", "set distill.head: own"
    if compared is not None:
        what, way = f"the distiller {compared} compares predictions anchor by anchor", "take one that compares maps"
    raise UsageError(
        f"{what}: the head of the teacher ({recipe.teacher.backbone}) has other anchors than that of the student "
        f"({recipe.student.backbone}) for these classes; {way}"
    )


def _needs(recipe: Recipe, name: str) -> tuple[str, ...]:
    """What a distiller of the recipe has to see beside maps."""
    if name in DISTILLERS:
        return OutputImitation.needs if name == OutputImitation.name else ()
    return tuple(custom.load(recipe, name).needs)


def warn_of_inheritance(recipe: Recipe) -> str | None:
    """The sentence for a student that inherits a head but not a trained backbone; None for others.

    On drawn shapes, from random weights, the teacher's head alone cost 6 points of mAP.
    """
    inherits = recipe.distill.head == "inherit" and recipe.trains("control", "distilled")
    if not inherits or recipe.student.init != "random":
        return None
    return (
        "head inheritance is for pretrained backbones: from student.init random it cost 6 points of mAP on drawn "
        "shapes, so take distill.head: own"
    )


def build_teacher(recipe: Recipe, classes: Sequence[str]) -> Detector:
    """The teacher before its training, or with the trained weights that the recipe names. On the CPU."""
    teacher, size = recipe.teacher, recipe.data.size
    if teacher.weights not in (None, "zoo"):
        return load_detector(Path(str(teacher.weights)).expanduser(), recipe, classes)[0]
    seed_everything(recipe.train.seed)
    if teacher.weights == "zoo":
        net = zoo.load_zoo_detector(zoo_name(recipe))
    else:
        net = zoo.build(teacher.backbone, size, classes, teacher.init, taps=teacher.taps)
    return _detector(recipe, *split(net))


def build_student(recipe: Recipe, classes: Sequence[str], network: str, teacher: Detector | None) -> Networks:
    """The student before its training, as `network`: baseline, control (head inheritance) or distilled. On the CPU.

    All three start from the same backbone and the same draw. With distill.head inherit, control and distilled carry
    adapters and a trainable copy of the teacher's head (paper, section 3: the head is "trained further") with its
    anchors; with untrained the same, its weights drawn last; with own, their own head, and the adapters serve the
    distillers alone. A run refuses a teacher's head of other anchors than the baseline's (ResNet50 on COCO).
    """
    seed_everything(recipe.train.seed)
    student = recipe.student
    extractor, head = split(zoo.build(student.backbone, recipe.data.size, classes, student.init, taps=student.taps))
    if network == "baseline" or teacher is None:
        return Networks(_detector(recipe, extractor, head))
    source = teacher.extractor
    pairs = pair_maps(extractor, source)
    adapters = Adapters(
        [extractor.channels[s] for s, _ in pairs], [source.channels[t] for _, t in pairs], recipe.distill.adapter
    )
    adapters.initialize()
    needed = adapters if adapters.needed else None
    if recipe.distill.head != "own":
        require_equal_sizes(extractor, source)
        taken = new_head(teacher.head) if recipe.distill.head == "inherit" else untrained_head(teacher.head)
        return Networks(_detector(recipe, extractor, taken, needed), source, teacher.head, pairs)
    return Networks(_detector(recipe, extractor, head), source, teacher.head, pairs, needed)


def head_in_words(recipe: Recipe, network: str, student: Detector, teacher: Detector) -> str:
    """Which head a taught student has and why, for the log."""
    whose = f"head of the student, {network_in_words(network, recipe.distill.head)}:"
    if recipe.distill.head == "inherit":
        return f"{whose} inherited, the teacher's weights and anchors"
    if recipe.distill.head == "untrained":
        return f"{whose} untrained, the teacher's layers and anchors with weights drawn at random"
    own, other = (net.head.anchors(net.extractor.sizes) for net in (student, teacher))
    why = "distill.head is own" if np.array_equal(own, other) else "the teacher's is for other maps or anchors"
    return f"{whose} its own, {why}"


def build_distillers(
    recipe: Recipe, stage: Stage, networks: Networks, contexts: Sequence[mx.Context]
) -> list[Distiller]:
    """The distillers that a stage names. A new method is one more entry here and one recipe key."""
    teacher = networks.teacher
    distillers: list[Distiller] = []
    for name in stage.distillers:
        assert teacher is not None  # the recipe's check lets only stages of the distilled student name distillers
        channels = [teacher.channels[t] for _, t in networks.pairs]
        sizes = [teacher.sizes[t] for _, t in networks.pairs]
        if name == "gan":
            seed_everything(recipe.train.seed)
            distillers.append(
                GanDistiller(recipe.distill.gan, channels, sizes, contexts, recipe.train.sync_bn, recipe.train.seed)
            )
        elif name == "cosine_attention":
            distillers.append(CosineAttention(recipe.distill.cosine_attention.weight))
        elif name == "feature_imitation":
            distillers.append(FeatureImitation(recipe.distill.feature_imitation, channels))
        elif name == "cwd":
            distillers.append(ChannelWise(recipe.distill.cwd))
        elif name == "outputs":
            distillers.append(OutputImitation(recipe.distill.outputs))
        else:
            seed_everything(recipe.train.seed)
            distillers.append(custom.build(recipe, name, Compared(channels, sizes, tuple(contexts))))
    return distillers


def describe(recipe: Recipe, network: str, detector: Detector, teacher_sha256: str | None = None) -> dict[str, Any]:
    """What best.params and best.json say of a network, enough to build it and detect with it, and who taught it how.

    teacher_sha256: of the params file of a student's teacher, where it is known.
    """
    taught = network in ("control", "distilled")
    own = network in ("teacher", "baseline") or recipe.distill.head == "own"
    teacher, described = recipe.teacher, recipe.teacher if network == "teacher" else recipe.student
    with_head = described if own else teacher
    return {
        "network": network,
        "backbone": described.backbone,
        "taps": zoo.taps_of(described.backbone, described.taps),
        "size": recipe.data.size,
        "classes": list(detector.head.classes),
        "head": HEADS["own" if own else recipe.distill.head],
        "head_backbone": with_head.backbone,
        "head_taps": zoo.taps_of(with_head.backbone, with_head.taps),
        "adapters": detector.adapters is not None,
        "adapter": recipe.distill.adapter,
        "teacher": {"backbone": teacher.backbone, "sha256": teacher_sha256} if taught else None,
        "distillers": recipe.distillers_of(network),
        "nms": recipe.eval.nms,
        "nms_topk": recipe.eval.nms_topk,
        "post_nms": recipe.eval.post_nms,
    }


def _detector(recipe: Recipe, extractor: Any, head: Any, adapters: Adapters | None = None) -> Detector:
    return join(extractor, head, adapters, recipe.eval.nms, recipe.eval.nms_topk, recipe.eval.post_nms)
