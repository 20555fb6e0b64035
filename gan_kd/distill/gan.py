"""GAN knowledge distillation (paper, section 3): a Wasserstein critic tells teacher maps from student maps."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
from mxnet import autograd, nd
from mxnet.ndarray import NDArray

from gan_kd.distill.base import Distiller, Maps, leaves, slopes
from gan_kd.engine.arrays import prefixed, set_values, statistics_kept, stripped, values
from gan_kd.engine.cluster import here
from gan_kd.engine.contexts import full
from gan_kd.engine.optim import Optimisation, Position
from gan_kd.models.discriminator import Discriminator, DNet, RealAndFake
from gan_kd.models.sync_bn import on_devices, summed
from gan_kd.recipe import Gan

# What scores are multiplied with on the way back to the maps, and their gradients divided by: in float16 those of one
# sample may be too small. A power of two changes no digit.
_SLOPE_SCALE = 2.0**10


class GanDistiller(Distiller):
    """Six discriminators (D-Net), their WGAN losses, and the training of D.

    L_D = mean[D(T(x)) - D(S(x))], minimised by D with S(x) detached; the student minimises mean[D(S(x))]. Both are
    averaged over the batch and summed over the maps. After every step of D its weights are clamped to
    [-clamp, clamp]; MXNet has no second-order gradient of a convolution, so there is no gradient penalty to choose.
    """

    name = "adversarial"

    def __init__(
        self,
        config: Gan,
        channels: Sequence[int],
        sizes: Sequence[int],
        contexts: Sequence[mx.Context],
        sync_bn: bool = False,
    ) -> None:
        """sync_bn: D's BatchNorm takes its statistics over all contexts together."""
        self.config = config
        self.warmup_epochs = config.warmup_epochs
        self.dnet = DNet(channels, sizes, config.width, config.norm)
        self.dnet.initialize(ctx=list(contexts))
        self.critics = RealAndFake(self.dnet)
        self.critics.hybridize(static_alloc=True)  # and with it D-Net; as in engine/step.py
        self._score = on_devices(self.dnet, len(channels), sync_bn)
        self._score_both = on_devices(self.critics, 2 * len(channels), sync_bn)
        self.optimisation = Optimisation(self.dnet.collect_params(), config.optimizer, config.schedule, contexts)

    def losses(self, teacher: Maps, student: Maps, batch_size: int) -> dict[str, NDArray]:
        """`shares` of one device."""
        return {name: parts[0] for name, parts in self.shares([teacher], [student], batch_size).items()}

    def shares(self, teacher: Sequence[Maps], student: Sequence[Maps], batch_size: int) -> dict[str, list[NDArray]]:
        """`weight` x mean[D(S(x))], the adversarial part of L_G.

        Its gradient is taken here and for the maps alone: D's own, which nobody uses, is as much work again as the
        whole of D's forward pass.
        """
        share = self.config.weight / batch_size
        maps = [leaves(part) for part in student]
        with autograd.record():
            scores = [_total(part) for part in self._score(maps)]
            scaled = [score * _SLOPE_SCALE for score in scores]
        found = [[slope / _SLOPE_SCALE for slope in part] for part in slopes(scaled, maps)]
        if self.config.slopes == "unit":
            found = _unit(found)
        losses = []
        for score, *part in zip(scores, student, maps, found):
            # What is added is 0 and brings the gradient back to the student.
            carriers = [nd.sum((m - still) * slope) for m, still, slope in zip(*part)]
            losses.append(nd.add_n(score.detach(), *carriers) * share)
        return {self.name: losses}

    def update(
        self, teacher: Sequence[Maps], student: Sequence[Maps], batch_size: int, position: Position
    ) -> dict[str, list[NDArray]]:
        """`critic_steps` steps of D on these maps. Logs L_D as `critic`, D(T(x)) and D(S(x)) per map."""
        detached = [[m.detach() for m in maps] for maps in student]
        for _ in range(self.config.critic_steps):
            with autograd.record():
                scores = self._score_both([[*maps, *others] for maps, others in zip(teacher, detached)])
                real = [_total(part[: len(part) // 2]) / batch_size for part in scores]
                fake = [_total(part[len(part) // 2 :]) / batch_size for part in scores]
                losses = [r - f for r, f in zip(real, fake)]
            self.optimisation.backward(losses)
            self.optimisation.step(position)
            self.clamp()
        per_map = 1 / len(teacher[0])
        return {
            "critic": losses,
            "critic_real": [r * per_map for r in real],
            "critic_fake": [f * per_map for f in fake],
        }

    def diagnose(self, teacher: Sequence[Maps], student: Sequence[Maps], batch_size: int) -> dict[str, list[float]]:
        """The gradient's norm and, for each map, two numbers of its critic.

        `critic_gap`: mean D(S(x)) - mean D(T(x)), of which -L_D is the sum. `critic_at_bound`: the share of its
        weights that stand at -clamp or clamp.
        """
        # The gradient's way through D moves its BatchNorms' running statistics; a checkpoint has them.
        with statistics_kept(self.dnet.collect_params().values()):
            found = super().diagnose(teacher, student, batch_size)
        with autograd.train_mode():
            scores = self._score_both([[*real, *fake] for real, fake in zip(teacher, student)])
        sums = [sum(_total([part]).asscalar() for part in parts) for parts in zip(*scores)]
        half = len(sums) // 2
        return {
            **found,
            "critic_gap": [float(fake - real) / batch_size for real, fake in zip(sums[:half], sums[half:])],
            "critic_at_bound": [self._at_bound(critic) for critic in self.dnet.discriminators],
        }

    def _at_bound(self, critic: Discriminator) -> float:
        # BatchNorm's scales and shifts are clamped too. The devices hold the same.
        weights = [p.list_data()[0] for p in critic.collect_params().values() if p.grad_req != "null"]
        bound = self.config.clamp * (1 - 1e-6)  # float32 rounds the clamp
        return sum(float(nd.sum(nd.abs(w) >= bound).asscalar()) for w in weights) / sum(w.size for w in weights)

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
        """D's weights and its optimiser's moments."""
        weights = values(self.dnet._collect_params_with_prefix())
        return {**prefixed("dnet", weights), **prefixed("optimiser", self.optimisation.state())}

    def load_state(self, state: dict[str, NDArray]) -> None:
        """Put back D's weights and its optimiser's moments."""
        set_values(self.dnet._collect_params_with_prefix(), stripped("dnet", state))
        self.optimisation.load_state(stripped("optimiser", state))


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
    """Sum over maps and samples: k scores of shape (n,) -> (1,)."""
    return nd.add_n(*[nd.sum(full(score)) for score in scores])
