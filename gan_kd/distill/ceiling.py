"""How large a critic's gap can become, and what its size says. Needs no MXNet: reports use it."""

from __future__ import annotations

from collections.abc import Sequence

from gan_kd.recipe import Gan

_NEAR = 0.9  # of the ceiling: so much is reached within an epoch and then no longer moves


def ceiling(gan: Gan, side: int | None) -> float | None:
    """The largest mean D(S(x)) - mean D(T(x)) of a critic for maps of `side` cells; None where none is known.

    A clamped critic whose last block has a norm cannot exceed 2 x cells x width x clamp^2, with the cells that its last
    convolution covers (8 x width x clamp^2 for 2x2): the norm gives every channel a variance of 1 on both sides, its
    scale and the last weights are at most the clamp, LeakyReLU does not enlarge a distance, and mean |n_S - n_T| is 2
    at most (Cauchy-Schwarz). Where scores are means over the cells, of patches and of maps of any size (side None), the
    cells count as one.
    """
    if gan.limit != "clamp" or gan.kind == "cell" or gan.norm == "none":
        return None
    if gan.kind == "patch" or side is None:
        return 2 * gan.width * gan.clamp**2
    if side <= 2:
        return None
    while side > 2:
        side //= 2
    if gan.norm == "instance" and side == 1:
        return None  # skipped there
    return 2 * side**2 * gan.width * gan.clamp**2


def gap_warnings(gan: Gan, sides: Sequence[int | None], gaps: Sequence[float]) -> list[str]:
    """A sentence for the maps whose gap is at its ceiling, and one for those where it is negative; sides: as above."""
    reached, negative = [], []
    for side, gap in zip(sides, gaps):
        most, where = ceiling(gan, side), f"at {side}x{side}" if side else "over all sizes"
        if most is not None and gap >= _NEAR * most:
            reached.append(f"{gap:.3g} of {most:.3g} {where}")
        if gap < 0:
            negative.append(f"{gap:.3g} {where}")
    found = []
    if reached:
        found.append(
            f"the critic's gap is at the most that its clamp and norm allow ({', '.join(reached)}): it has little left "
            "to teach there; set distill.gan.norm: none, or distill.gan.limit: spectral"
        )
    if negative:
        found.append(
            f"the critic's gap is negative ({', '.join(negative)}): it takes the student's maps for the teacher's and "
            "pushes the student on; lower distill.gan.weight, or end the stage sooner"
        )
    return found
