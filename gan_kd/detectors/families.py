"""The families of detectors, and what the engine asks of one: a module of plain functions, found by the recipe's word.

A new family is a folder beside this file and an entry in `gan_kd.recipe.families`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Union, cast

from mxnet.gluon import HybridBlock

from gan_kd.data.batch import Transform
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.anchors import Anchors
from gan_kd.detectors.base import DetectionLoss, Detector, Level, Parts
from gan_kd.recipe import Eval, Recipe, Student, Teacher
from gan_kd.recipe.families import FAMILIES

Network = Union[Teacher, Student]
Shape = tuple[int, ...]


class Cost(NamedTuple):
    """What an image costs behind the maps, for the estimate of memory, at the network's typical input."""

    #: Blocks that a training step runs forward and backward, each with the shapes of its inputs for one image.
    training: list[tuple[HybridBlock, list[Shape]]]
    #: The same of a forward pass up to the head's predictions.
    forward: list[tuple[HybridBlock, list[Shape]]]
    #: Numbers in the head's predictions, and of these in the scores of classes.
    outputs: int
    scores: int
    #: Numbers in a sample's targets.
    targets: int


class Family(Protocol):
    """The functions of a family's module. A head takes the maps that its extractor names (`Extractor.to_head`)."""

    #: Forms in which `export` can write a detector, of mxnet, onnx and int8.
    FORMS: tuple[str, ...]

    def downloads(self, recipe: Recipe) -> list[str]:
        """Names in GluonCV's zoo of the files that the recipe's networks start from."""
        ...

    def build(self, recipe: Recipe, network: Network, classes: Sequence[str]) -> Parts:
        """One of the recipe's two networks with its first weights, on the CPU; drawn ones follow mx.random.seed."""
        ...

    def assemble(self, recipe: Recipe, network: Network, classes: Sequence[str]) -> Parts:
        """The same as shapes alone: nothing is drawn or read."""
        ...

    def about(self, recipe: Recipe, network: Network) -> dict[str, Any]:
        """What a params file says of this network beside backbone, size and classes, for `extractor_of`, `head_of`."""
        ...

    def restore(self, about: Mapping[str, Any]) -> Parts:
        """Extractor and own head of a described network, with random weights to load a file into."""
        ...

    def head_for(self, levels: Sequence[Level] | None, about: Mapping[str, Any]) -> tuple[Any, list[Level]]:
        """A head to load into that a student has of a teacher, and the teacher's levels; no teacher is built.

        about: of the teacher. levels: its own as the file states them; None in files that do not.
        """
        ...

    def lend(self, head: Any, trained: bool) -> Any:
        """A head of the given one's layers with parameters of its own: equal ones, or drawn at random.

        UsageError where the family's heads cannot be lent.
        """
        ...

    def lend_neck(self, teacher: Parts, student: Parts) -> None:
        """Give the student's neck the teacher's values. Only of families that can (`Facts.lends_neck`)."""
        ...

    def comparable(self, student: Parts, teacher: Parts) -> bool:
        """Whether predictions of both are at the same places, one by one. The parts may be shapes alone."""
        ...

    def join(self, parts: Parts, adapters: Adapters | None, measured: Eval) -> Detector:
        """The detector of these parts, which are shared, on the contexts of the head."""
        ...

    def train_transform(self, recipe: Recipe, parts: Parts) -> Transform:
        """What makes training samples with this network's targets."""
        ...

    def detection_loss(self, recipe: Recipe) -> DetectionLoss:
        """The loss of both networks."""
        ...

    def anchors(self, parts: Parts, levels: Sequence[int]) -> Anchors:
        """Of these levels, by number. Only of families that give distillers their anchors (`Facts.gives`)."""
        ...

    def cost(self, parts: Parts) -> Cost:
        """Of a network as shapes alone."""
        ...


def family(name: str) -> Family:
    """The module of a family, imported when it is asked for."""
    return cast(Family, importlib.import_module(FAMILIES[name].module))
