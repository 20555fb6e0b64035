"""Adapters: 1x1 convolutions where student and teacher maps differ in channels; the pairing of maps.

The paper does not say how channels are bridged; its authors answered a reader "add a 1x1 conv to link to
the GAN".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from gan_kd.errors import UsageError


class Maps(Protocol):
    """What has feature maps: an Extractor."""

    channels: list[int]
    sizes: list[int]


def pair_maps(student: Maps, teacher: Maps) -> list[tuple[int, int]]:
    """Indices (student map, teacher map) of the maps of equal side.

    Of several maps of one side the k-th belongs to the k-th.
    Raises UsageError, with both lists of shapes, where no side is common.
    """
    unpaired: dict[int, list[int]] = defaultdict(list)
    for index, size in enumerate(teacher.sizes):
        unpaired[size].append(index)
    pairs = [(index, unpaired[size].pop(0)) for index, size in enumerate(student.sizes) if unpaired[size]]
    if not pairs:
        raise UsageError(f"student and teacher have no maps of equal size: {_shapes(student, teacher)}")
    return pairs


def require_equal_sizes(student: Maps, teacher: Maps) -> None:
    """Raises UsageError, with both lists of shapes, where the student does not fit the teacher's head."""
    if student.sizes != teacher.sizes:
        raise UsageError(
            "the teacher's head needs student maps of the teacher's sizes, so distil with the "
            f"student's own head (distill.head: own): {_shapes(student, teacher)}"
        )


def _shapes(student: Maps, teacher: Maps) -> str:
    def of(maps: Maps) -> str:
        return ", ".join(f"{channels}x{size}x{size}" for channels, size in zip(maps.channels, maps.sizes))

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
        self.needed = list(student_channels) != list(teacher_channels)
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
