"""What detectors of every family are made of: levels, extractor, head, decoder, and the detector itself.

Families share no code beside this but what lies next to it; what a family has to give says `gan_kd.detectors.families`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import mxnet as mx
from mxnet.gluon import HybridBlock, Parameter
from mxnet.ndarray import NDArray

from gan_kd.data.batch import TrainBatch
from gan_kd.data.sizes import Size, Sizes
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.suppression import Suppression
from gan_kd.gluon import weights

#: Where a map comes from; a distiller says which it compares.
PLACES = ("backbone", "neck")

Maps = list[NDArray]


class Level(NamedTuple):
    """One of the maps of an extractor, known before the first image."""

    #: Of `PLACES`.
    place: str
    channels: int
    #: px of the input that a cell stands for; maps of student and teacher are paired by place and stride.
    stride: float
    #: Cells a side; None where inputs vary.
    side: int | None = None

    def shape(self, size: Size) -> tuple[int, int, int]:
        """(channels, h, w) of the map of an input of this size."""
        if self.side is not None:
            return self.channels, self.side, self.side
        height, width = (-int(-side // self.stride) for side in size)
        return self.channels, height, width


class Extractor(HybridBlock):
    """Image (N,3,H,W) float32 -> list of feature maps (N,C_i,h_i,w_i) float32, one a level, in the order of `levels`.

    to_head: which of them the head takes, by number; None: all.
    """

    def __init__(self, levels: Sequence[Level], to_head: Sequence[int] | None = None) -> None:
        super().__init__()
        self.levels = list(levels)
        self.to_head = list(range(len(self.levels)) if to_head is None else to_head)

    @property
    def channels(self) -> list[int]:
        """Channels of each map."""
        return [level.channels for level in self.levels]

    @property
    def sizes(self) -> list[int]:
        """Sides of the maps, where inputs are square."""
        return [level.side for level in self.levels if level.side is not None]

    @property
    def strides(self) -> list[float]:
        """Of each map."""
        return [level.stride for level in self.levels]

    def freeze(self) -> None:
        """Ends the gradients of its parameters.

        BatchNorm statistics are no gradients: they stay as they are only while it runs outside
        `autograd.record`.
        """
        self.collect_params().setattr("grad_req", "null")


class Head(HybridBlock):
    """The maps that `Extractor.to_head` names -> predictions, in inference as in training."""

    classes: tuple[str, ...]

    @property
    def contexts(self) -> list[mx.Context]:
        """Where its parameters live."""
        return next(iter(self.collect_params().values())).list_ctx()

    def weights(self) -> dict[str, Parameter]:
        """Everything of it that a file holds, by its names there."""
        named: dict[str, Parameter] = self._collect_params_with_prefix()
        return named

    def to_onnx(self) -> HybridBlock:
        """What ONNX's converter takes in its place: maps -> what `to_onnx` of the decoder's candidates goes on from."""
        return self

    def outputs(self, maps: Maps) -> Any:
        """Its predictions by name, float32 at least: a NamedTuple of the family. What distillers see as `outputs`."""
        raise NotImplementedError


class Decoder(HybridBlock):
    """Predictions of a head -> ids (N,K,1), scores (N,K,1), boxes (N,K,4), corners in input px.

    candidates: predictions -> scores (N,A,C) without background, boxes (N,A,4), corners in input px.
    """

    def __init__(self, candidates: HybridBlock, suppression: Suppression) -> None:
        super().__init__()
        self.candidates = candidates
        self.suppression = suppression

    def hybrid_forward(self, F, *outputs):  # type: ignore[no-untyped-def]
        return self.suppression(*self.candidates(*outputs))


class Parts(NamedTuple):
    """A network that is not put together."""

    extractor: Any  # Extractor
    head: Any  # Head
    #: How large its input is.
    sizes: Sizes


class Detector(HybridBlock):
    """Image (N,3,H,W) float32 -> ids (N,K,1), scores (N,K,1), boxes (N,K,4), as of Decoder.

    What is deployed after distillation: student, adapters where channels differ, head (paper, algorithm,
    step 6). The parts are shared with whoever made them: training them trains the detector.
    """

    #: Whether it is called with (image, extents (N,2) height and width without padding, px).
    takes_extents = False

    def __init__(self, parts: Parts, adapters: Adapters | None, decoder: HybridBlock) -> None:
        super().__init__()
        self.extractor = parts.extractor
        self.adapters = adapters
        self.head = parts.head
        self.decoder = decoder
        self.sizes = parts.sizes

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        classes: tuple[str, ...] = self.head.classes
        return classes

    def parts(self) -> Parts:
        """Extractor and head."""
        return Parts(self.extractor, self.head, self.sizes)

    def head_maps(self, x: Any) -> Any:
        """The maps that the head takes, adapted."""
        maps = self.extractor(x)
        maps = [maps[index] for index in self.extractor.to_head]
        return maps if self.adapters is None else self.adapters(*maps)

    def hybrid_forward(self, F, x):  # type: ignore[no-untyped-def]
        return self.decoder(*self.head(*self.head_maps(x)))

    def weights(self) -> dict[str, Parameter]:
        """Parameters by their names in a file: GluonCV's, and `adapters.*`, which GluonCV does not know.

        ValueError where extractor and head share a name.
        """
        named, others = self.extractor._collect_params_with_prefix(), self.head.weights()
        if named.keys() & others.keys():
            raise ValueError(f"extractor and head both name a parameter {min(named.keys() & others.keys())}")
        named.update(others)
        if self.adapters is not None:
            named.update(self.adapters._collect_params_with_prefix("adapters"))
        return named

    def save(self, path: str | Path) -> None:
        """Writes a .params file, which GluonCV's network loads if there are no adapters; RunError on failure."""
        weights.write(self.weights(), path)

    def load(self, path: str | Path, what: str = "this detector") -> None:
        """Loads a file of `save` or of GluonCV's `save_parameters`.

        Raises UsageError where the file is broken, not finite, or of another network (`what` names this one).
        """
        weights.assign(self.weights(), weights.read(path, what), path, what)


class Detected(NamedTuple):
    """What the detection loss gives for the batch of every device."""

    #: Losses by name, one (1,) array a device that add up to those of the whole batch.
    losses: dict[str, list[NDArray]]
    #: The head's predictions, as of `Head.outputs`.
    outputs: list[Any]
    #: What was assigned to what on every device, by names of the family, where it can tell.
    assigned: Sequence[Mapping[str, Any]] | None = None


class DetectionLoss(Protocol):
    """A family's loss."""

    def prepare(self, batch: TrainBatch, contexts: Sequence[mx.Context]) -> list[Any]:
        """What each device has to have of a batch, copied there, with the counts of the whole batch of all workers."""
        ...

    def shares(self, head: Any, maps: Sequence[Maps], prepared: Sequence[Any]) -> Detected:
        """The losses through a head, from the maps that it takes on every device. Inside `autograd.record()`."""
        ...
