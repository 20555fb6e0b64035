"""The networks of a recipe: the teacher, and a student as baseline, with an inherited head alone, or distilled."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import gluon

from gan_kd.detectors.adapters import Adapters, pair_maps, require_equal_sizes
from gan_kd.detectors.base import DetectionLoss, Detector, Extractor, Head, Parts
from gan_kd.detectors.families import family
from gan_kd.detectors.saved import load_detector
from gan_kd.detectors.store import weights_file
from gan_kd.distill.base import Distiller
from gan_kd.errors import RunError, UsageError
from gan_kd.recipe import Recipe, network_in_words
from gan_kd.system.paths import expanded


@dataclass
class Networks:
    """What a stage trains, and what it learns from."""

    detector: Detector
    #: Of detection, by which all networks of a recipe are trained.
    loss: DetectionLoss
    #: The frozen teacher, where there is one to learn from.
    teacher: Extractor | None = None
    #: Its head, which runs only for distillers that need outputs.
    teacher_head: Head | None = None
    #: (student map, teacher map) that belong together.
    pairs: Sequence[tuple[int, int]] = ()
    #: Adapters that serve the distillers alone, because the student keeps its own head; not deployed.
    bridge: Adapters | None = None

    def parameters(self, distillers: Sequence[Distiller] = ()) -> dict[str, gluon.Parameter]:
        """Everything that the student's optimiser moves in a stage with these distillers, by its name in files.

        Of the bridge, as `bridge.*`, what one of them compares: the rest would have no gradient, which Gluon refuses.
        Their own parameters follow, as `NAME.*`. Without the anchors, which are constants. UsageError where two have
        one name.
        """
        detector = self.detector
        parameters = {**detector.extractor._collect_params_with_prefix(), **detector.head._collect_params_with_prefix()}
        if detector.adapters is not None:
            parameters.update(detector.adapters._collect_params_with_prefix("adapters"))
        if self.bridge is not None:
            bridged = {k for distiller in distillers if not distiller.adapts for k in self.pairs_at(distiller.places)}
            for k in sorted(bridged):
                parameters.update(self.bridge.maps[k]._collect_params_with_prefix(f"bridge.maps.{k}"))
        for distiller in distillers:
            for name, parameter in distiller.parameters().items():
                if f"{distiller.name}.{name}" in parameters:
                    raise UsageError(
                        f"the distiller {type(distiller).__name__} has a parameter {distiller.name}.{name}, a name "
                        "that the student has already: rename it"
                    )
                parameters[f"{distiller.name}.{name}"] = parameter
        return parameters

    def pairs_at(self, places: Container[str]) -> list[int]:
        """Which of `pairs` stand at one of these places."""
        return [k for k, place in enumerate(self.places) if place in places]

    @property
    def places(self) -> list[str]:
        """Where each of `pairs` stands."""
        levels = self.teacher.levels if self.teacher is not None else []
        return [levels[index].place for _, index in self.pairs]

    def trained(self) -> dict[str, dict[str, gluon.Parameter]]:
        """The parameters of what a stage trains, by the name of the part in checkpoints."""
        parts = {"detector": self.detector.weights()}
        if self.bridge is not None:
            parts["bridge"] = self.bridge._collect_params_with_prefix()
        return parts

    def move(self, contexts: Sequence[mx.Context]) -> None:
        """Put all of them on these devices."""
        for block in (self.detector, self.bridge, self.teacher, self.teacher_head):
            if block is not None:
                block.collect_params().reset_ctx(list(contexts))

    def hybridize(self) -> None:
        """Compile every part for training; an evaluation in between compiles the detector anew for itself."""
        blocks = (
            self.detector.extractor,
            self.detector.adapters,
            self.detector.head,
            self.bridge,
            self.teacher,
            self.teacher_head,
        )
        for block in blocks:
            if block is not None:
                # Not static_shape: with it MXNet does not know that backward writes BatchNorm's statistics, and whoever
                # reads or sets them may come before it. It brings no speed here.
                block.hybridize(static_alloc=True)


def seed_everything(seed: int) -> None:
    """Start MXNet's and NumPy's generators, from which initial weights are drawn."""
    mx.random.seed(seed)
    np.random.seed(seed)


def fetch_weights(recipe: Recipe) -> None:
    """Download what the recipe starts from, where it is not there yet. RunError, naming all of it, where that fails."""
    problems = []
    for name in family(recipe.detector).downloads(recipe):
        try:
            weights_file(name)
        except RunError as error:
            problems.append(str(error))
    if problems:
        raise RunError("; ".join(problems))


def named_teacher(recipe: Recipe, classes: Sequence[str], folder: Path) -> Detector | None:
    """The teacher of the file that teacher.weights names, for a run in `folder` that has none of its own yet.

    UsageError where it cannot be used: found now, not after the student's baseline.
    """
    named = recipe.teacher.weights not in (None, "zoo")
    if named and recipe.needs_teacher and not (folder / "teacher" / "best.params").exists():
        return build_teacher(recipe, classes)
    return None


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


def assemble(recipe: Recipe, classes: Sequence[str]) -> dict[str, Parts]:
    """The networks that the recipe trains or learns from, `teacher` and `student`, as shapes alone."""
    of = family(recipe.detector)
    found = {"teacher": of.assemble(recipe, recipe.teacher, classes)} if recipe.needs_teacher else {}
    if recipe.trains("baseline", "control", "distilled"):
        found["student"] = of.assemble(recipe, recipe.student, classes)
    return found


def require_fitting_head(recipe: Recipe, shapes: Mapping[str, Parts], compared: str | None = None) -> None:
    """UsageError, before any training, where student and teacher need the same maps or anchors and have others.

    compared: a distiller of the recipe that compares predictions. Through another head's anchors the student would
    learn from other targets than its baseline does, and predictions could not be compared one by one.
    """
    taught = recipe.trains("control", "distilled")
    taken, neck = (taught and part != "own" for part in (recipe.distill.head, recipe.distill.neck))
    if not (taken or neck) and compared is None:
        return
    student, teacher = (shapes[network] for network in ("student", "teacher"))
    channels = [network.extractor.channels for network in (student, teacher)]
    if neck and channels[0] != channels[1]:
        own, others = (", ".join(map(str, each)) for each in channels)
        raise UsageError(
            f"distill.neck inherit needs maps of equal channels, but the student's have {own} and the teacher's "
            f"{others}: set distill.neck: own"
        )
    if taken:
        require_equal_sizes(student.extractor, teacher.extractor)
    if family(recipe.detector).comparable(student, teacher):
        return
    what, way = f"distill.head {recipe.distill.head}", "set distill.head: own"
    if compared is not None:
        what, way = f"the distiller {compared} compares predictions anchor by anchor", "take one that compares maps"
    raise UsageError(
        f"{what}: the head of the teacher ({recipe.teacher.backbone}) has other anchors or settings than that of the "
        f"student ({recipe.student.backbone}) for these classes; {way}"
    )


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
    teacher = recipe.teacher
    if teacher.weights not in (None, "zoo"):
        return load_detector(expanded(str(teacher.weights)), recipe, classes)[0]
    seed_everything(recipe.train.seed)
    of = family(recipe.detector)
    return of.join(of.build(recipe, teacher, classes), None, recipe.eval)


def build_student(
    recipe: Recipe,
    classes: Sequence[str],
    network: str,
    teacher: Detector | None,
    places: Container[str] = ("neck",),
) -> Networks:
    """The student before its training, as `network`: baseline, control (head inheritance) or distilled. On the CPU.

    All three start from the same backbone and the same draw. With distill.head inherit, control and distilled carry
    adapters and a trainable copy of the teacher's head (paper, section 3: the head is "trained further") with its
    anchors; with untrained the same, its weights drawn last; with own, their own head. Maps that are compared without
    having the teacher's channels so get adapters that serve the distillers alone. A run refuses a teacher's head of
    other anchors than the baseline's (ResNet50 on COCO). With distill.neck inherit their neck starts from the teacher's
    values. places: of the maps that distillers compare.
    """
    seed_everything(recipe.train.seed)
    of = family(recipe.detector)
    parts = of.build(recipe, recipe.student, classes)
    if network == "baseline" or teacher is None:
        return Networks(of.join(parts, None, recipe.eval), of.detection_loss(recipe))
    extractor, source, adapters = parts.extractor, teacher.extractor, None
    channels = extractor.channels
    if recipe.distill.neck == "inherit":
        of.lend_neck(teacher.parts(), parts)
    if recipe.distill.head != "own":
        require_equal_sizes(extractor, source)
        taken = extractor.to_head
        adapters = _adapters(recipe, [channels[s] for s in taken], [source.channels[t] for t in source.to_head])
        parts = parts._replace(head=of.lend(teacher.head, recipe.distill.head == "inherit"))
        adapted = dict(zip(taken, (source.channels[t] for t in source.to_head)))
        channels = [adapted.get(index, each) for index, each in enumerate(channels)]
    pairs = pair_maps(extractor, source, places)
    bridge = _adapters(recipe, [channels[s] for s, _ in pairs], [source.channels[t] for _, t in pairs])
    detector = of.join(parts, adapters, recipe.eval)
    return Networks(detector, of.detection_loss(recipe), source, teacher.head, pairs, bridge)


def _adapters(recipe: Recipe, own: Sequence[int], others: Sequence[int]) -> Adapters | None:
    """From maps of these channels to those, initialised; None where they are the same."""
    if list(own) == list(others):
        return None
    adapters = Adapters(own, others, recipe.distill.adapter)
    adapters.initialize()
    return adapters


def head_in_words(recipe: Recipe, network: str, student: Detector, teacher: Detector) -> str:
    """Which head a taught student has and why, for the log."""
    whose = f"head of the student, {network_in_words(network, recipe.distill.head)}:"
    neck = "; neck: inherited, the teacher's weights" if recipe.distill.neck == "inherit" else ""
    if recipe.distill.head == "inherit":
        return f"{whose} inherited, the teacher's weights and anchors{neck}"
    if recipe.distill.head == "untrained":
        return f"{whose} untrained, the teacher's layers and anchors with weights drawn at random{neck}"
    own, other = (net.parts() for net in (student, teacher))
    alike = family(recipe.detector).comparable(own, other)
    why = "distill.head is own" if alike else "the teacher's is for other maps or anchors"
    return f"{whose} its own, {why}{neck}"
