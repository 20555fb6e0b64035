"""GAN knowledge distillation (paper, section 3): critics tell teacher maps from student maps, the student fools them.

As the paper writes it by default. The other keys of `distill.gan` mend what keeps that critic from teaching: it may see
the maps standardised, cell by cell, and beside the teacher's map of the same image, and be held by other means than
the clamp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mxnet import autograd, nd
from mxnet.ndarray import NDArray

from gan_kd.distill.base import Compared, Distiller, Maps, Seen, leaves, slopes
from gan_kd.distill.ceiling import gap_warnings
from gan_kd.distill.discriminator import Critic, DNet, RealAndFake
from gan_kd.distill.limits import Spectral, penalise
from gan_kd.distill.standard import Standard
from gan_kd.distributed.cluster import here
from gan_kd.gluon.arrays import prefixed, set_values, statistics_kept, stripped, values
from gan_kd.gluon.contexts import full
from gan_kd.gluon.optim import Optimisation, Position
from gan_kd.gluon.sync_bn import on_devices, summed
from gan_kd.recipe import Gan

# What scores are multiplied with on the way back to the maps, and their gradients divided by: in float16 those of one
# sample may be too small. A power of two changes no digit.
_SLOPE_SCALE = 2.0**10


class GanDistiller(Distiller):
    """A critic for each map (D-Net), its loss, and its training.

    loss wgan: L_D = mean[D(T(x)) - D(S(x))], minimised by D with S(x) detached. hinge: mean[max(0, 1 + D(T(x)))] +
    mean[max(0, 1 - D(S(x)))]. The student minimises mean[D(S(x))], and with `match` the L1 distance of the critic's
    hidden layers on S(x) and T(x) too (feature matching, Salimans et al. 2016, section 3.1, but paired). All are
    averaged over the batch and the cells that are scored, and summed over the maps; `match` is averaged over maps,
    layers and their elements. condition teacher: D sees every map beside the teacher's of the same image.

    After every step of D `limit` holds its weights: clamp to [-clamp, clamp] (WGAN, algorithm 1); spectral norms of 1
    at most; or none of both but a penalty in its loss (WGAN-GP). With critic_steps 0 D stays as it was drawn.
    """

    name = "adversarial"

    def __init__(self, config: Gan, compared: Compared) -> None:
        """Draws D's weights."""
        channels, contexts, sync_bn = compared.channels, compared.contexts, compared.sync_bn
        self.config = config
        self.warmup_epochs = config.warmup_epochs
        self.seed = compared.seed
        inputs = [count * (2 if config.condition == "teacher" else 1) for count in channels]
        self.levels = compared.levels
        sides = [level.side for level in self.levels]
        self.dnet = DNet(inputs, sides, config.width, config.norm, config.kind, config.match > 0)
        self.dnet.initialize(ctx=list(contexts))
        self.critics = RealAndFake(self.dnet)
        self.critics.hybridize(static_alloc=True)  # and with it D-Net; as in training/step.py
        self._score = on_devices(self.dnet, len(channels), sync_bn)
        self._score_both = on_devices(self.critics, 2 * len(channels), sync_bn)
        named = self.dnet._collect_params_with_prefix()
        self.optimisation = Optimisation(named, config.optimizer, config.schedule, contexts)
        #: Whether the student does not learn from D yet.
        self._silent = False
        self.standard = Standard(channels) if config.input == "standard" else None
        self.spectral = Spectral(self.dnet) if config.limit == "spectral" else None

    def losses(self, seen: Seen, batch_size: int) -> dict[str, NDArray]:
        """`shares` of one device."""
        return {name: parts[0] for name, parts in self.shares([seen], batch_size).items()}

    def shares(self, seen: Sequence[Seen], batch_size: int) -> dict[str, list[NDArray]]:
        """`adversarial`: weight x mean[D(S(x))], the adversarial part of L_G; `adversarial_match`: `match` x L1.

        Their gradients are taken here and for the maps alone: D's own, which nobody uses, is as much work again as the
        whole of D's forward pass. Both are 0 in the `critic_only_epochs`.
        """
        if self._silent:
            names = [self.name, f"{self.name}_match"][: 2 if self.config.match else 1]
            return {name: [nd.add_n(*[nd.sum(m) * 0 for m in part.student]) for part in seen] for name in names}
        maps = [leaves(part.student) for part in seen]
        with autograd.record():
            fakes, distances = self._fake_side([part.teacher for part in seen], maps)
            scores = [_total(part) for part in fakes]
            scaled = [score * _SLOPE_SCALE for score in scores]
        found = [[slope / _SLOPE_SCALE for slope in part] for part in slopes(scaled, maps, bool(distances))]
        if self.config.slopes == "unit":
            found = _unit(found)
        share = self.config.weight / batch_size
        named = {self.name: [_carried(*one) * share for one in zip(scores, seen, maps, found)]}
        if distances:
            share, found = self.config.match / batch_size, slopes(distances, maps)
            named[f"{self.name}_match"] = [_carried(*one) * share for one in zip(distances, seen, maps, found)]
        return named

    def _fake_side(self, teacher: Sequence[Maps], student: Sequence[Maps]) -> tuple[list[list[NDArray]], list[NDArray]]:
        """Of every device the student's scores and, with `match`, the distance of its hidden layers to the teacher's.

        The teacher's side runs along only where something of it is needed: a joint BatchNorm's statistics or layers.
        """
        count = len(student[0])
        if not self.config.match and self.config.norm != "joint":
            return [part[:count] for part in self._score([self._fakes(*both) for both in zip(teacher, student)])], []
        outputs = self._score_both(
            [[*self._reals(real), *self._fakes(real, fake)] for real, fake in zip(teacher, student)]
        )
        scores = [part[count : 2 * count] for part in outputs]
        return scores, [_distance(part[2 * count :]) for part in outputs] if self.config.match else []

    def _reals(self, teacher: Maps) -> Maps:
        """What D is shown of the teacher."""
        maps = self.standard(teacher) if self.standard is not None else teacher
        return list(map(_beside, maps, maps)) if self.config.condition == "teacher" else maps

    def _fakes(self, teacher: Maps, student: Maps) -> Maps:
        """What D is shown of the student."""
        maps = self.standard(student) if self.standard is not None else student
        if self.config.condition != "teacher":
            return maps
        beside = self.standard(teacher) if self.standard is not None else teacher
        return list(map(_beside, maps, beside))

    def update(self, seen: Sequence[Seen], batch_size: int, position: Position) -> dict[str, list[NDArray]]:
        """`critic_steps` steps of D on these maps. Logs L_D as `critic`, D(T(x)) and D(S(x)) per map."""
        self._silent = position.step * position.epochs < self.config.critic_only_epochs * position.steps
        if self.standard is not None:
            self.standard.see(seen)
        if not self.config.critic_steps:
            return {}
        count = len(seen[0].teacher)
        reals = [self._reals(part.teacher) for part in seen]
        fakes = [self._fakes(part.teacher, [m.detach() for m in part.student]) for part in seen]
        for number in range(self.config.critic_steps):
            with autograd.record():
                scores = self._score_both([[*maps, *others] for maps, others in zip(reals, fakes)])
                real = [_total(part[:count]) / batch_size for part in scores]
                fake = [_total(part[count : 2 * count]) / batch_size for part in scores]
                losses = [self._critic_loss(*one, batch_size) for one in zip(real, fake, scores)]
            self.optimisation.backward(losses)
            if self.config.limit == "penalty":
                penalties = self._penalise(reals, fakes, batch_size, position, number)
                losses = [loss + penalty for loss, penalty in zip(losses, penalties)]
            self.optimisation.step(position)
            self._limit()
        per_map = 1 / count
        return {
            "critic": losses,
            "critic_real": [r * per_map for r in real],
            "critic_fake": [f * per_map for f in fake],
        }

    def _critic_loss(self, real: NDArray, fake: NDArray, scores: Sequence[NDArray], batch_size: int) -> NDArray:
        """L_D of one device."""
        if self.config.loss == "wgan":
            return real - fake
        count = len(self.dnet.discriminators)
        low = _total([nd.relu(1 + score) for score in scores[:count]])
        high = _total([nd.relu(1 - score) for score in scores[count : 2 * count]])
        return (low + high) / batch_size

    def _penalise(
        self, reals: Sequence[Maps], fakes: Sequence[Maps], batch_size: int, position: Position, number: int
    ) -> list[NDArray]:
        """Add the penalty's gradient to D's, and give its value on every device.

        On points between both sides of every image, drawn for the whole batch whatever the devices. Of a conditional
        critic the slope at the student's half counts: the other half is given.
        """
        draws = np.random.default_rng([self.seed, position.warmed + position.step, number])
        drawn = draws.random(batch_size).astype("float32")
        devices = np.array_split(np.array_split(drawn, here().size)[here().rank], len(reals))
        found = []
        for real, fake, mine in zip(reals, fakes, devices):
            share = nd.array(mine.reshape((-1, 1, 1, 1)), ctx=real[0].context, dtype=real[0].dtype)
            points = [nd.broadcast_mul(r, share) + nd.broadcast_mul(f, 1 - share) for r, f in zip(real, fake)]
            scale = self.config.penalty / batch_size
            found.append(penalise(self.dnet, points, self.config.condition == "teacher", scale))
        return found

    def diagnose(self, seen: Sequence[Seen], batch_size: int) -> dict[str, list[float]]:
        """The gradients' norms and, for each map, two numbers of its critic.

        `critic_gap`: mean D(S(x)) - mean D(T(x)), of which -L_D is the sum with the loss wgan. `critic_at_bound`: the
        share of its weights that stand at -clamp or clamp, with that limit.
        """
        # The gradient's way through D moves its BatchNorms' running statistics; a checkpoint has them.
        with statistics_kept(self.dnet.collect_params().values()):
            found = super().diagnose(seen, batch_size)
        with autograd.train_mode():
            scores = self._score_both(
                [[*self._reals(part.teacher), *self._fakes(part.teacher, part.student)] for part in seen]
            )
        half = len(self.dnet.discriminators)
        sums = [sum(_total([part]).asscalar() for part in parts) for parts in zip(*(p[: 2 * half] for p in scores))]
        found["critic_gap"] = [float(fake - real) / batch_size for real, fake in zip(sums[:half], sums[half:])]
        if self.config.limit == "clamp":
            found["critic_at_bound"] = [self._at_bound(critic) for critic in self.dnet.discriminators]
        return found

    def warnings(self, found: Mapping[str, Sequence[float]]) -> list[str]:
        """Where a critic's gap is at its ceiling, or negative."""
        any_size = any(level.side is None for level in self.levels)
        sides = [None if any_size else int(side) for side in found["maps"]]
        return gap_warnings(self.config, sides, found["critic_gap"])

    def _at_bound(self, critic: Critic) -> float:
        # BatchNorm's scales and shifts are clamped too. The devices hold the same.
        weights = [p.list_data()[0] for p in critic.collect_params().values() if p.grad_req != "null"]
        bound = self.config.clamp * (1 - 1e-6)  # float32 rounds the clamp
        return sum(float(nd.sum(nd.abs(w) >= bound).asscalar()) for w in weights) / sum(w.size for w in weights)

    def _limit(self) -> None:
        if self.config.limit == "clamp":
            self.clamp()
        elif self.spectral is not None:
            self.spectral.project()

    def clamp(self) -> None:
        """Limit every weight of D to [-clamp, clamp], in place on every device (WGAN, algorithm 1).

        BatchNorm's running statistics are no weights and stay. In place is safe only because no Trainer here updates
        on the kvstore, whose own copy would overwrite it.
        """
        for parameter in self.dnet.collect_params().values():
            if parameter.grad_req != "null":
                for data in parameter.list_data():
                    nd.clip(data, -self.config.clamp, self.config.clamp, out=data)

    def state(self) -> dict[str, NDArray]:
        """D's weights, its optimiser's moments, and what `input` and `limit` keep."""
        weights = values(self.dnet._collect_params_with_prefix())
        state = {**prefixed("dnet", weights), **prefixed("optimiser", self.optimisation.state())}
        for part, kept in (("standard", self.standard), ("spectral", self.spectral)):
            if kept is not None:
                state.update(prefixed(part, kept.state()))
        return state

    def load_state(self, state: dict[str, NDArray]) -> None:
        """Put back what `state` gave."""
        set_values(self.dnet._collect_params_with_prefix(), stripped("dnet", state))
        self.optimisation.load_state(stripped("optimiser", state))
        for part, kept in (("standard", self.standard), ("spectral", self.spectral)):
            if kept is not None:
                kept.load_state(stripped(part, state))


def _beside(one: NDArray, other: NDArray) -> NDArray:
    """Two maps (n, C, S, S) as one, (n, 2C, S, S); the backward pass of `concat` crashes on CPUs at 1x1 cells."""
    return nd.stack(one, other, axis=1).reshape((one.shape[0], -1, *one.shape[2:]))


def _carried(value: NDArray, seen: Seen, still: Maps, slopes: Maps) -> NDArray:
    """The value, with the gradient `slopes` at the student's maps: what is added is 0 and brings it there."""
    carriers = [nd.sum((m - leaf) * slope) for m, leaf, slope in zip(seen.student, still, slopes)]
    return nd.add_n(value.detach(), *carriers)


def _distance(hidden: Sequence[NDArray]) -> NDArray:
    """Mean L1 distance of hidden layers: the first half of the arrays are the teacher's, the second the student's."""
    half = len(hidden) // 2
    parts = [
        nd.sum(nd.mean(nd.abs(fake - real), axis=0, exclude=True)) for real, fake in zip(hidden[:half], hidden[half:])
    ]
    return nd.add_n(*parts) / half


def _unit(found: Sequence[Maps]) -> list[Maps]:
    """Gradients (n, C, S, S) of every device, those of each map scaled so that the samples of the whole batch have a
    norm of 1, in the root mean square.

    The critic of a Wasserstein distance has slope 1 (WGAN-GP, proposition 1); one with clamped weights has whatever
    its layers make of the clamp, and every map's has another: some 2,000 times more at 2x2, where no BatchNorm is,
    than at 16x16, where three have their scale clamped too.
    """
    samples = here().total([sum(len(part[0]) for part in found)])[0]
    squares = [summed([nd.sum(nd.square(slope)) for slope in one_map])[0] for one_map in zip(*found)]
    norms = nd.sqrt(here().sum("slopes", nd.concat(*squares, dim=0)) / samples + 1e-24)
    return [[slope / norms[k : k + 1].as_in_context(slope.context) for k, slope in enumerate(part)] for part in found]


def _total(scores: Sequence[NDArray]) -> NDArray:
    """Sum over maps and samples: k scores of shape (n,), or (n, cells), of which the mean counts -> (1,)."""
    return nd.add_n(*[nd.sum(full(score if score.ndim == 1 else nd.mean(score, axis=1))) for score in scores])
