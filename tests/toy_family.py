"""A family of detectors in a few lines: one map, whose cells say the class and the box of what is centred there."""

from typing import NamedTuple

import numpy as np
from mxnet import gluon, nd
from mxnet.gluon import nn

from gan_kd.data.pixels import ValTransform
from gan_kd.data.sizes import Square
from gan_kd.detectors.base import Decoder, Detected, Detector, Extractor, Head, Level, Parts
from gan_kd.detectors.families import Cost
from gan_kd.detectors.suppression import Suppression
from gan_kd.distill.base import Distiller
from gan_kd.gluon.contexts import split

FORMS, WIDTHS = (), {"toy_small": 4, "toy_large": 8}


class Body(Extractor):
    def __init__(self, width, size):
        super().__init__([Level("neck", width, 8, size // 8)])
        self.layer = nn.Conv2D(width, 8, 8, in_channels=3, activation="relu")

    def hybrid_forward(self, F, x):
        return [self.layer(x)]


class Outputs(NamedTuple):
    classes: nd.NDArray  # (n, cells, classes + 1) logits, class 0 the background
    boxes: nd.NDArray  # (n, cells, 4) corners in px


class Cells(Head):
    def __init__(self, width, classes):
        super().__init__()
        self.classes, self.predict = tuple(classes), nn.Conv2D(len(classes) + 5, 1, in_channels=width)

    def outputs(self, maps):
        return Outputs(*self(*maps))

    def hybrid_forward(self, F, x):
        rows = F.transpose(F.reshape(self.predict(x), (0, 0, -1)), (0, 2, 1))
        return F.slice_axis(rows, axis=2, begin=4, end=None), F.slice_axis(rows, axis=2, begin=0, end=4)


class Candidates(gluon.HybridBlock):
    def hybrid_forward(self, F, classes, boxes):
        return F.slice_axis(F.softmax(classes, axis=-1), axis=2, begin=1, end=None), boxes


class Transform(ValTransform):
    def arrays(self, height, width, objects):
        return [((height // 8 * (width // 8), 5), np.float32)]

    def write(self, sample, rng, image, targets):
        super().write(sample, rng, image, [])
        label, across = sample.label()[:, :5], self.sizes.side // 8
        label[:, :4] /= np.tile(self.factors(sample.record.width, sample.record.height), 2)
        column, row = ((label[:, :2] + label[:, 2:4]) // 16).clip(0, across - 1).astype(int).T
        targets[0][:] = 0
        targets[0][row * across + column] = label + [0, 0, 0, 0, 1]
        return label


class Loss:
    def prepare(self, batch, contexts):
        return [(targets, len(batch.images)) for targets in split(batch.targets[0], contexts)]

    def shares(self, head, maps, prepared):
        outputs, losses = [head.outputs(part) for part in maps], {"cells": [], "corners": []}
        for found, (targets, count) in zip(outputs, prepared):
            boxes, labels = targets[:, :, :4], targets[:, :, 4]
            losses["cells"].append(-nd.pick(nd.log_softmax(found.classes, axis=-1), labels, axis=-1).sum() / count)
            losses["corners"].append((nd.abs(found.boxes - boxes).sum(axis=2) * (labels > 0)).sum() / 64 / count)
        return Detected(losses, outputs)


def restore(about):
    width, side = WIDTHS[about["backbone"]], about["size"]
    parts = Parts(Body(width, side), Cells(width, about["classes"]), Square(side))
    parts.extractor.initialize()
    parts.head.initialize()
    return parts


def build(recipe, network, classes):
    return restore({"backbone": network.backbone, "size": recipe.data.size, "classes": classes})


def join(parts, adapters, measured):
    counts = parts.extractor.sizes[0] ** 2, len(parts.head.classes)
    suppression = Suppression(*counts, measured.nms, measured.nms_topk, measured.post_nms)
    return Detector(parts, adapters, Decoder(Candidates(), suppression))


def cost(parts):
    head = (parts.head, [(1, *parts.extractor.levels[0].shape(parts.sizes.typical))])
    return Cost([head], [head], outputs=576, scores=320, targets=320)


assemble, comparable, detection_loss = build, lambda student, teacher: True, lambda recipe: Loss()
train_transform, downloads = lambda recipe, parts: Transform(parts.sizes), lambda recipe: list[str]()
about = lambda recipe, network: dict[str, str]()  # noqa: E731


class Scores(Distiller):
    name, needs, places = "scores", ("outputs",), ()

    def __init__(self, compared, weight=1.0):
        self.weight = weight

    def losses(self, seen, batch_size):
        student, teacher = (nd.softmax(one.classes, axis=-1) for one in reversed(seen.outputs))
        return {"scores": nd.square(student - teacher).sum() * (self.weight / batch_size)}
