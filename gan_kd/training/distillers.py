"""The distillers of a stage: which classes a recipe names, what they may ask for, and how they are built."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx

from gan_kd.detectors.families import family
from gan_kd.distill import custom
from gan_kd.distill.base import Compared, Distiller
from gan_kd.distill.bounded_regression import BoundedRegression
from gan_kd.distill.cosine_attention import CosineAttention
from gan_kd.distill.cwd import ChannelWise
from gan_kd.distill.feature_imitation import FeatureImitation
from gan_kd.distill.fine_grained import FineGrained
from gan_kd.distill.gan import GanDistiller
from gan_kd.distill.information_map import InformationMap, ObjectnessMap
from gan_kd.distill.localization import LocalizationDistillation
from gan_kd.distill.outputs import OutputImitation
from gan_kd.distill.region_imitation import RegionImitation
from gan_kd.errors import UsageError
from gan_kd.recipe import Recipe, Stage
from gan_kd.recipe.families import FAMILIES
from gan_kd.training.networks import Networks, seed_everything

#: By the name of the method's section in a recipe. A new method is one more entry here and one recipe key.
METHODS: dict[str, type[Distiller]] = {
    "gan": GanDistiller,
    "cosine_attention": CosineAttention,
    "feature_imitation": FeatureImitation,
    "fine_grained": FineGrained,
    "cwd": ChannelWise,
    "information_map": InformationMap,
    "outputs": OutputImitation,
    "localization": LocalizationDistillation,
    "region_imitation": RegionImitation,
    "bounded_regression": BoundedRegression,
}


def method(recipe: Recipe, name: str) -> type[Distiller]:
    """The class of a distiller that a recipe names; UsageError as `custom.load`."""
    if name == "information_map" and recipe.distill.information_map.weighting == "objectness":
        return ObjectnessMap
    found: type[Distiller] = METHODS[name] if name in METHODS else custom.load(recipe, name)
    return found


def places(recipe: Recipe, name: str) -> tuple[str, ...]:
    """Where the maps stand that a distiller of the recipe compares."""
    own = method(recipe, name).places
    return tuple(recipe.distill.places) if own and recipe.distill.places is not None else own


def compared_places(recipe: Recipe, network: str) -> set[str]:
    """Of the maps that any distiller of a network's stages compares; where there is none, of those before the head."""
    named = [name for stage in recipe.stages.values() if stage.trains == network for name in stage.distillers]
    return {place for name in named for place in places(recipe, name)} or {FAMILIES[recipe.detector].places[-1]}


def require_given(recipe: Recipe) -> None:
    """UsageError, before any training, for a stage with a distiller that the detector family cannot serve."""
    facts = FAMILIES[recipe.detector]
    for stage_name, stage in recipe.stages.items():
        for name in stage.distillers:
            what = f"stages.{stage_name}: the distiller {name}"
            for need in method(recipe, name).needs:
                if need not in facts.gives:
                    raise UsageError(
                        f"{what} needs {need}, which the detector {recipe.detector} does not give (it gives "
                        f"{', '.join(facts.gives) or 'nothing'}): take another distiller or detector"
                    )
            if places(recipe, name) and recipe.teacher.remember:
                room = f"teacher.remember {recipe.teacher.remember:g}"
                raise UsageError(f"{what} compares maps, which {room} does not keep: set it to 0")
            for place in places(recipe, name):
                if place not in facts.places:
                    raise UsageError(
                        f"{what} compares maps of the {place}, but the detector {recipe.detector} has maps of the "
                        f"{' and the '.join(facts.places)} alone: set distill.places"
                    )


def comparing_outputs(recipe: Recipe) -> str | None:
    """A distiller of the recipe that compares predictions, if there is one."""
    named = [name for stage in recipe.stages.values() for name in stage.distillers]
    return next((name for name in named if "outputs" in method(recipe, name).needs), None)


def build_distillers(
    recipe: Recipe, stage: Stage, networks: Networks, contexts: Sequence[mx.Context]
) -> list[Distiller]:
    """The distillers that a stage names, each for the pairs of maps at its places."""
    distillers = []
    for name in stage.distillers:
        teacher, student = networks.teacher, networks.detector
        assert teacher is not None  # the recipe's check lets only stages of the distilled student name distillers
        pairs = [networks.pairs[k] for k in networks.pairs_at(places(recipe, name))]
        # A teacher from a file has the sides of its own input; in a training they may vary.
        levels = [teacher.levels[t]._replace(side=student.extractor.levels[s].side) for s, t in pairs]
        own = [student.extractor.channels[s] for s, _ in pairs]
        if student.adapters is not None:
            adapted = student.extractor.to_head
            own = [level.channels if s in adapted else own[k] for k, ((s, _), level) in enumerate(zip(pairs, levels))]
        anchors = None
        if "anchors" in method(recipe, name).needs:
            anchors = family(recipe.detector).anchors(student.parts(), [s for s, _ in pairs])
        compared = Compared(
            levels,
            tuple(contexts),
            student.head.classes,
            tuple(own),
            anchors,
            recipe.train.seed,
            recipe.train.sync_bn,
        )
        seed_everything(recipe.train.seed)
        if name in METHODS:
            made = method(recipe, name)(getattr(recipe.distill, name), compared)  # type: ignore[call-arg]
        else:
            made = custom.build(recipe, name, compared)
        made.places = places(recipe, name)
        distillers.append(made)
    return distillers
