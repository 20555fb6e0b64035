"""Adapters: 1x1 convolutions where student and teacher maps differ in channels; the pairing of maps.

The paper does not say how channels are bridged; its authors answered a reader "add a 1x1 conv to link to
the GAN".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from typing import Any, Protocol

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from gan_kd.errors import UsageError


class Maps(Protocol):
    """What has feature maps: an Extractor."""

    #: (place, channels, stride, side) of each.
    levels: list[Any]
    to_head: list[int]


def pair_maps(student: Maps, teacher: Maps, places: Container[str] = ("neck",)) -> list[tuple[int, int]]:
    """Indices (student map, teacher map) of the maps of equal place and stride, among these places.

    Of several maps of one place and stride the k-th belongs to the k-th.
    Raises UsageError, with both lists of shapes, where there is no pair.
    """
    unpaired: dict[tuple[str, float], list[int]] = defaultdict(list)
    for index, level in enumerate(teacher.levels):
        if level.place in places:
            unpaired[level.place, level.stride].append(index)
    alike = ((index, unpaired[level.place, level.stride]) for index, level in enumerate(student.levels))
    pairs = [(index, left.pop(0)) for index, left in alike if left]
    if not pairs:
        raise UsageError(f"student and teacher have no maps of equal size: {_shapes(student, teacher)}")
    return pairs


def require_equal_sizes(student: Maps, teacher: Maps) -> None:
    """Raises UsageError, with both lists of shapes, where the student does not fit the teacher's head."""
    own, other = ([maps.levels[index].stride for index in maps.to_head] for maps in (student, teacher))
    if own != other:
        raise UsageError(
            "the teacher's head needs student maps of the teacher's sizes, so distil with the "
            f"student's own head (distill.head: own): {_shapes(student, teacher)}"
        )


def _shapes(student: Maps, teacher: Maps) -> str:
    def of(maps: Maps) -> str:
        return ", ".join(
            f"{channels}x{side}x{side}" if side else f"{channels} of stride {stride:g}"
            for _, channels, stride, side in maps.levels
        )

    return f"student {of(student)}; teacher {of(teacher)}"


class Adapters(HybridBlock):
    """Maps (N,student_channels[i],S,S) -> list of maps (N,teacher_channels[i],S,S).

    Where the channels differ, a 1x1 convolution with bias, without norm (the paper does not say); where they
    agree, nothing. kind: 'linear', or 'relu' behind each convolution. `needed` tells whether there is any.
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int], kind: str = "linear") -> None:
        super().__init__()
        if len(student_channels) != len(teacher_channels):
            raise ValueError(f"{len(student_channels)} student maps for {len(teacher_channels)} teacher maps")
        activation = "relu" if kind == "relu" else None
        self.channels = list(teacher_channels)
        self.needed = list(student_channels) != self.channels
        with self.name_scope():
            self.maps = nn.HybridSequential(prefix="")
            for student, teacher in zip(student_channels, teacher_channels):
                self.maps.add(
                    _Same()
                    if student == teacher
                    else nn.Conv2D(
                        teacher,
                        1,
                        in_channels=student,
                        activation=activation,
                        weight_initializer=mx.init.Xavier(),
                    )
                )

    def hybrid_forward(self, F, *maps):  # type: ignore[no-untyped-def]
        return [adapt(x) for adapt, x in zip(self.maps, maps)]


class _Same(HybridBlock):
    """The map itself, by way of an operator: a compiled graph that returns its input fails in backward."""

    def hybrid_forward(self, F, x):  # type: ignore[no-untyped-def]
        return F.identity(x)
