"""Distillers as a user would write them, which recipes of tests name as tests.distill.own_methods.CLASS."""

from __future__ import annotations

import mxnet as mx
from mxnet import autograd, nd
from mxnet.gluon import nn

from gan_kd.distill.base import Distiller


class ScaledImitation(Distiller):
    """Squared distance of the teacher's maps and the student's times a scale, which is learnt for each map."""

    name = "scaled_imitation"

    def __init__(self, compared, weight=1.0, lr=0.1):
        self.weight, self.lr = weight, lr
        self.scales = mx.gluon.Parameter("scales", shape=(len(compared.channels),), init="ones")
        self.scales.initialize(ctx=list(compared.contexts))

    def losses(self, seen, batch_size):
        scales = self.scales.data(seen.teacher[0].context).detach()
        return {self.name: self._distance(scales, seen.teacher, seen.student) * (self.weight / batch_size)}

    def update(self, seen, batch_size, position):
        found, slopes = [], []
        for part in seen:
            real, fake = part.teacher, part.student
            scales = self.scales.data(real[0].context).detach()
            scales.attach_grad()
            with autograd.record():
                distance = self._distance(scales, real, [m.detach() for m in fake]) / batch_size
            distance.backward()
            found.append(distance)
            slopes.append(scales.grad.as_in_context(mx.cpu()))
        self.scales.set_data(
            self.scales.data(seen[0].teacher[0].context).as_in_context(mx.cpu()) - self.lr * sum(slopes)
        )
        return {"scale_distance": found}

    def state(self):
        return {"scales": self.scales.list_data()[0]}

    def load_state(self, state):
        self.scales.set_data(state["scales"])

    @staticmethod
    def _distance(scales, teacher, student):
        each = [
            nd.sum(nd.mean(nd.square(scales[k] * fake - real), axis=(1, 2, 3)))
            for k, (real, fake) in enumerate(zip(teacher, student))
        ]
        return nd.add_n(*each) / len(each)


class AdaptedImitation(Distiller):
    """Squared distance of the teacher's maps and the student's behind an adaptation layer of the method's own."""

    name = "adapted_imitation"
    adapts = True

    def __init__(self, compared, weight=1.0):
        self.weight = weight
        self.layers = nn.HybridSequential()
        for level, channels in zip(compared.levels, compared.student_channels):
            self.layers.add(nn.Conv2D(level.channels, 1, in_channels=channels))
        self.layers.initialize(ctx=list(compared.contexts))

    def parameters(self):
        return self.layers._collect_params_with_prefix()

    def losses(self, seen, batch_size):
        adapted = [layer(own) for layer, own in zip(self.layers, seen.student)]
        each = [nd.sum(nd.mean(nd.square(a - t), axis=(1, 2, 3))) for a, t in zip(adapted, seen.teacher)]
        return {self.name: nd.add_n(*each) * (self.weight / (len(each) * batch_size))}


class OnPositives(Distiller):
    """Distance of both heads' class logits at the anchors that the detection loss took for an object."""

    name = "on_positives"
    places = ()
    needs = ("outputs", "assigned")

    def __init__(self, compared):
        self.seen = []

    def losses(self, seen, batch_size):
        self.seen.append(seen)
        teacher, student = seen.outputs
        apart = nd.mean(nd.square(student.classes - teacher.classes), axis=2)
        return {self.name: nd.sum(apart * (seen.assigned["classes"] > 0)) / batch_size}


class Curious(Distiller):
    """Wants what no detector here gives."""

    name = "curious"
    needs = ("captions",)

    def __init__(self, compared):
        pass


class Deep(Distiller):
    """Compares maps at a place that SSD does not have."""

    name = "deep"
    places = ("backbone",)

    def __init__(self, compared):
        pass


class Nameless(Distiller):
    """Not usable: its arrays would have no name in a checkpoint."""

    def __init__(self, compared):
        pass


class NoDistiller:
    """Something else."""
