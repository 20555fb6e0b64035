"""YOLOv3's loss as shares of the batch, by GluonCV's blocks."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
from gluoncv.loss import YOLOV3Loss
from gluoncv.model_zoo.yolo.yolo_target import YOLOV3TargetMerger
from mxnet import autograd, nd
from mxnet.gluon import HybridBlock
from mxnet.ndarray import NDArray

from gan_kd.data.batch import TrainBatch
from gan_kd.detectors.base import Detected, Maps
from gan_kd.detectors.yolo3.network import Predictions, YOLO3Head
from gan_kd.detectors.yolo3.targets import ROW
from gan_kd.distributed.cluster import here
from gan_kd.gluon.contexts import full, split
from gan_kd.gluon.sync_bn import OnDevices, on_devices

#: Losses by name in the order of `YOLO3Loss`, as GluonCV's script logs them.
LOSSES = ("obj", "center", "scale", "cls")
#: IoU with any object above which a box without an object of its own is no negative (YOLOv3, section 2.1, has .5).
IGNORE = 0.7


class YOLO3Loss(HybridBlock):
    """Four shares (1,) of one device: of objectness, centre, scale and class, bit-equal to GluonCV's `YOLOV3`.

    Each is the sum over the anchors of an image, summed over this device's images and multiplied by `share`.
    Cross-entropy, but L1 of the scales; objectness is learnt at every anchor that is not ignored (`IGNORE`), the rest
    at anchors with an object. An object's share of a mixture weighs all of its losses.

    label_smoothing: classes' targets are min(1/C, 1/40) in place of 0 and less than 1 by as much.
    """

    def __init__(self, classes: int, label_smoothing: bool = False) -> None:
        super().__init__()
        self.targets = YOLOV3TargetMerger(classes, IGNORE)
        self.targets._label_smooth = label_smoothing  # where GluonCV's script sets it
        self.loss = YOLOV3Loss()

    def hybrid_forward(  # type: ignore[no-untyped-def]
        self, F, boxes, objectness, centres, scales, classes, truth, share, *targets
    ):
        """The five of `Predictions`; truth (n, M, 4) corners in input px, -1 in rows without an object; share (1,): 1 /
        images of the whole batch; targets: what `spread` gives."""
        found = self.loss(objectness, centres, scales, classes, *self.targets(F.BlockGrad(boxes), truth, *targets))
        return [F.sum(loss) * share for loss in found]


class YOLO3DetectionLoss:
    """The four losses as the engine wants them: on every device, over the images of the whole batch.

    sync_bn: the head's BatchNorm takes its statistics over all devices together.
    """

    def __init__(self, label_smoothing: bool = False, sync_bn: bool = False) -> None:
        self.label_smoothing, self.sync_bn = label_smoothing, sync_bn
        self._head: YOLO3Head | None = None  # whose these are
        self._loss: YOLO3Loss
        self._predict: OnDevices

    def prepare(self, batch: TrainBatch, contexts: Sequence[mx.Context]) -> list[tuple[NDArray, NDArray, NDArray]]:
        """Corners of the objects (n, M, 4), rows of `YOLO3Targets` (n, M, 8), and 1 / images, of each device."""
        (size,) = here().total([len(batch.images)])
        truth, rows = split(batch.truth[:, :, :4], contexts), split(batch.targets[0], contexts)
        return list(zip(truth, rows, (nd.array([1 / size], ctx=context) for context in contexts)))

    def shares(
        self, head: YOLO3Head, maps: Sequence[Maps], prepared: Sequence[tuple[NDArray, NDArray, NDArray]]
    ) -> Detected:
        """`obj`, `center`, `scale` and `cls`."""
        if self._head is not head:
            self._head, self._loss = head, YOLO3Loss(len(head.classes), self.label_smoothing)
            self._loss.hybridize(static_alloc=True)
            self._predict = on_devices(head, len(maps[0]), self.sync_bn)
        outputs = [Predictions(*map(full, found)) for found in self._predict(maps)]
        losses = []
        for found, (truth, rows, share) in zip(outputs, prepared):
            with autograd.pause():
                targets = spread(rows, found.boxes.shape[1], len(head.classes))
            losses.append(self._loss(*found, truth, share, *targets))
        return Detected({name: list(parts) for name, parts in zip(LOSSES, zip(*losses))}, outputs)


def spread(rows: NDArray, anchors: int, classes: int) -> list[NDArray]:
    """The targets of every anchor from the rows (n, M, 8) of n images, on their device, as GluonCV's loss takes them.

    Returns objectness (n, A, 1), centres (n, A, 2), scales (n, A, 2), weights (n, A, 2) and classes (n, A, classes);
    where there is no object all are 0.
    """
    images, most, _ = rows.shape
    rows = rows.reshape((-1, ROW))
    number = rows[:, 0] + (rows[:, 0] < 0) * (anchors + 1)  # unused rows go behind the last anchor
    image = nd.repeat(nd.arange(images, ctx=rows.context), most)
    values = nd.concat(rows[:, 1:5], rows[:, 5:6], rows[:, 5:7], nd.one_hot(rows[:, 7], classes), dim=1)
    whole = nd.scatter_nd(values, nd.stack(image, number), shape=(images, anchors + 1, 7 + classes))[:, :anchors]
    centres, scales, weights = (whole[:, :, start : start + 2] for start in (0, 2, 4))
    return [whole[:, :, 6:7], centres, scales, weights, whole[:, :, 7:]]
