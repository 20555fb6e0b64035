"""Combinations of knobs that cannot work, refused when a recipe is loaded, before any data is read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gan_kd.errors import UsageError
from gan_kd.recipe.convert import nearest
from gan_kd.recipe.families import FAMILIES
from gan_kd.recipe.schema import DISTILLERS, Recipe, Schedule, Stage
from gan_kd.recipe.words import network_in_words


def check(recipe: Recipe) -> None:
    """Raises UsageError with the key's path and the way out for the first combination that cannot work."""
    if any(part in ("", ".", "..") for part in recipe.name.split("/")):
        raise UsageError(f"name {recipe.name} cannot be a folder under runs/")
    _check_data(recipe)
    _check_networks(recipe)
    _check_stages(recipe)
    for name, stage in recipe.stages.items():
        _check_stage(recipe, f"stages.{name}", stage)
    FAMILIES[recipe.detector].check(recipe)
    _check_devices(recipe)
    _check_eval(recipe)


def _check_data(recipe: Recipe) -> None:
    data = recipe.data
    for key, splits in (("train", data.train), ("val", data.val)):
        if not splits:
            raise UsageError(f"data.{key} is empty: name at least one split")
        _refuse_repeated(f"data.{key}", splits)
        for split in splits:
            if data.dataset == "voc" and not re.fullmatch(r"\d{4}/[^/]+", split):
                raise UsageError(f"data.{key}: splits of voc are written YEAR/NAME, as in 2007/test, not {split}")
    if isinstance(data.classes, list):
        if not data.classes:
            raise UsageError("data.classes is empty: name at least one class")
        _refuse_repeated("data.classes", data.classes)
    else:
        _check_word_or_file("data.classes", data.classes, ("voc", "coco", "annotations"))


def _check_networks(recipe: Recipe) -> None:
    if recipe.detector not in FAMILIES:
        raise UsageError(f"detector cannot be {recipe.detector}{nearest(recipe.detector, FAMILIES)}")
    for role, network in (("teacher", recipe.teacher), ("student", recipe.student)):
        known = FAMILIES[recipe.detector].backbones
        if network.backbone not in known:
            raise UsageError(f"{role}.backbone cannot be {network.backbone}{nearest(network.backbone, known)}")
        _check_word_or_file(f"{role}.init", network.init, ("imagenet", "random"))
        _refuse_repeated(f"{role}.taps", network.taps or ())
    if recipe.teacher.remember and recipe.data.augment != "flip":
        raise UsageError(
            f"teacher.remember {recipe.teacher.remember:g}: no image comes again under data.augment "
            f"{recipe.data.augment}; leave it at 0, or set data.augment: flip"
        )
    if recipe.teacher.weights is not None and recipe.needs_teacher:
        _check_word_or_file("teacher.weights", recipe.teacher.weights, ("zoo",))


def _check_stages(recipe: Recipe) -> None:
    """What the list of stages needs as a whole."""
    trained = [stage.trains for stage in recipe.stages.values()]
    if not trained:
        raise UsageError("stages is empty: a recipe has at least one (inherit base for the usual ones)")
    taught = [i for i, network in enumerate(trained) if network in ("control", "distilled")]
    if taught and recipe.teacher.weights is None and "teacher" not in trained:
        raise UsageError("stages need a teacher: set teacher.weights, or add a stage with trains: teacher")
    if taught and "teacher" in trained[taught[0] :]:
        student = network_in_words(trained[taught[0]], recipe.distill.head)
        raise UsageError(f"stages train the teacher after the {student} student; it comes first")
    if "distilled" in trained and not any(stage.distillers for stage in recipe.stages.values()):
        raise UsageError("stages: none of the distilled student has distillers; a student without is trains: inherit")
    named = [name for stage in recipe.stages.values() for name in stage.distillers if name not in DISTILLERS]
    if recipe.distill.places == []:
        raise UsageError("distill.places is empty: name backbone, neck or both, or leave it out")
    for name in recipe.distill.custom:
        if name not in named:
            raise UsageError(f"distill.custom has arguments of {name}, which no stage has{nearest(name, named)}")
    if recipe.distill.neck == "inherit" and not FAMILIES[recipe.detector].lends_neck:
        able = ", ".join(name for name, facts in FAMILIES.items() if facts.lends_neck)
        raise UsageError(f"distill.neck inherit is for {able}; the detector {recipe.detector} keeps its own: set own")
    if "control" in trained and recipe.distill.head == "own":
        raise UsageError("stages: head inheritance (trains: inherit) needs distill.head inherit or untrained, not own")


def _check_stage(recipe: Recipe, path: str, stage: Stage) -> None:
    if stage.distillers and stage.trains != "distilled":
        named = network_in_words(stage.trains, recipe.distill.head)
        raise UsageError(f"{path}.distillers: {named} is trained without; use trains: distilled, or []")
    _refuse_repeated(f"{path}.distillers", stage.distillers)
    for i, name in enumerate(stage.distillers):
        if name not in DISTILLERS and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
            raise UsageError(
                f"{path}.distillers[{i}] cannot be {name}{nearest(name, DISTILLERS)}; your own is written "
                "package.module.Class"
            )
    _check_schedule(f"{path}.schedule", stage.schedule, path, stage.epochs)
    if "fine_grained" in stage.distillers and recipe.distill.fine_grained.adapter.kernel % 2 == 0:
        raise UsageError(
            f"distill.fine_grained.adapter.kernel {recipe.distill.fine_grained.adapter.kernel} is even: cells would "
            "move by half; take an odd one"
        )
    by_objectness = recipe.distill.information_map.weighting == "objectness" and recipe.detector != "yolo3"
    if "information_map" in stage.distillers and by_objectness:
        raise UsageError(
            f"distill.information_map.weighting objectness needs yolo3, but detector is {recipe.detector}: take "
            "energy, softmax or none"
        )
    if "gan" in stage.distillers:
        _check_gan(recipe)
        if recipe.distill.gan.critic_only_epochs >= stage.epochs:
            raise UsageError(
                f"distill.gan.critic_only_epochs {recipe.distill.gan.critic_only_epochs} leave the student none of the "
                f"{stage.epochs} epochs of {path} to learn from D in: lower it"
            )
        _check_schedule("distill.gan.schedule", recipe.distill.gan.schedule, path, stage.epochs)


def _check_gan(recipe: Recipe) -> None:
    gan = recipe.distill.gan
    if gan.kind == "cell" and gan.norm != "none":
        raise UsageError(f"distill.gan.kind cell has no norm, but distill.gan.norm is {gan.norm}: set it to none")
    if gan.limit == "penalty" and gan.norm != "none":
        # The slope of one sample would be a function of the others (WGAN-GP, section 4).
        raise UsageError(
            f"distill.gan.limit penalty needs a critic without norm, not {gan.norm}: set distill.gan.norm: none"
        )
    if gan.limit == "penalty" and recipe.train.amp:
        raise UsageError("distill.gan.limit penalty works in float32 only: leave --amp out, or take limit spectral")


def _check_schedule(path: str, schedule: Schedule, stage: str, epochs: int) -> None:
    if schedule.name != "step":
        return
    points = [at * epochs if at < 1 else at for at in schedule.at]
    for point, written in zip(points, schedule.at):
        if point >= epochs:
            raise UsageError(f"{path}.at: epoch {written:g} lies outside {stage}, which has {epochs} epochs")
    if points != sorted(set(points)):
        raise UsageError(f"{path}.at has to ascend, but is {schedule.at}")


def _check_devices(recipe: Recipe) -> None:
    contexts = recipe.train.contexts
    for i, context in enumerate(contexts):
        if not re.fullmatch(r"(cpu|gpu):[0-9]{1,3}", context):  # MXNet makes room for each device up to the number
            raise UsageError(f"train.contexts[{i}] is written cpu:0 or gpu:0, not {context}")
    _refuse_repeated("train.contexts", contexts)
    if len({context[:3] for context in contexts}) != 1:
        raise UsageError(f"train.contexts are either GPUs or CPUs, at least one, not {contexts}")
    if recipe.train.amp and contexts[0].startswith("cpu"):
        # No float16 convolution is in the CPU build, and gradients of its bfloat16 ones are wrong: at 2x2 cells not
        # finite, at others 300 times those in float32.
        raise UsageError("train.amp needs GPUs, but train.contexts are CPUs: leave --amp out, or add --gpus")
    if recipe.train.amp and recipe.train.sync_bn:
        # As MXNet's own; its casts on arrays, outside of a graph, are other ones.
        raise UsageError("train.sync_bn works in float32 only: leave --amp or --syncbn out")
    for key, batch in (("train", recipe.train.batch_size), ("eval", recipe.eval.batch_size)):
        if batch < len(contexts):
            raise UsageError(f"{key}.batch_size {batch} cannot be split over {len(contexts)} contexts")


def _check_eval(recipe: Recipe) -> None:
    if recipe.eval.metric == "coco" and recipe.data.dataset != "coco":
        raise UsageError(f"eval.metric coco needs data.dataset coco, not {recipe.data.dataset} (use voc07 or voc10)")
    measured = recipe.data.val if recipe.data.holdout is None else recipe.data.train
    if recipe.eval.metric == "coco" and len(measured) > 1:
        raise UsageError(f"eval.metric coco counts one split, not {', '.join(measured)} (use voc07 or voc10)")
    if recipe.eval.post_nms > recipe.eval.nms_topk:
        raise UsageError(f"eval.post_nms {recipe.eval.post_nms} is above eval.nms_topk {recipe.eval.nms_topk}")


def _check_word_or_file(path: str, value: str, words: tuple[str, ...]) -> None:
    """Refuses a text that is neither one of the words nor looks like a file (has a slash or a suffix)."""
    if value not in words and "/" not in value and "." not in value:
        raise UsageError(f"{path} {value} is neither a file nor a known word{nearest(value, words)}")


def _refuse_repeated(path: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise UsageError(f"{path} names {value} twice")
        seen.add(value)
