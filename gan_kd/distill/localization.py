"""Localization Distillation (Zheng et al., arXiv 2102.12252): the student's box edges and classes follow the teacher's
distributions, each in the regions where that helps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mxnet import nd
from mxnet.ndarray import NDArray

from gan_kd.detectors.gfl.loss import Share, taken, weights
from gan_kd.detectors.gfl.transform import UNUSED
from gan_kd.distill.base import Compared, Distiller, Seen
from gan_kd.distill.localization_losses import divergence, edge_divergence
from gan_kd.distill.localization_regions import valuable
from gan_kd.distributed.cluster import here
from gan_kd.recipe import Localization as Config


class LocalizationDistillation(Distiller):
    """KL divergences of box edges (ld) and of classes (kd), in the main region, the positive priors, and in the
    valuable localization region (vlr).

    As in the published program the box terms are sums over a device's batch, so that they would grow with it: here
    they are those of `ld.reference` images, whatever the batch. Class terms are means over the region's priors of each
    level, and levels are added.
    """

    name = "localization"
    needs = ("outputs", "assigned", "priors")
    places = ()

    def __init__(self, config: Config, compared: Compared) -> None:
        self.config = config

    def shares(self, seen: Sequence[Seen], batch_size: int) -> dict[str, list[NDArray]]:
        """`ld`, `ld_vlr`, `kd`, `kd_vlr`, those whose weights are not 0."""
        ld, kd = self.config.ld, self.config.kd
        scale = ld.reference / batch_size
        main = [share_of(part).objects >= 0 for part in seen]
        vlr = [self._valuable(share_of(part)) for part in seen] if ld.vlr or kd.vlr else main
        named = {}
        if ld.main:
            named["ld"] = [self._edges(*each, ld.main * scale, True) for each in zip(seen, main)]
        if ld.vlr:
            named["ld_vlr"] = [self._edges(*each, ld.vlr * scale, False) for each in zip(seen, vlr)]
        for name, weight, region in (("kd", kd.main, main), ("kd_vlr", kd.vlr, vlr)):
            if weight:
                shares = weight * kd.coefficient / np.maximum(_per_level(seen, region), 1)
                named[name] = [self._classes(*each, shares) for each in zip(seen, region)]
        return named

    def diagnose(self, seen: Sequence[Seen], batch_size: int) -> dict[str, list[float]]:
        """Of each level `main_region` and `vlr_region`, the share of its priors, and `main_edges` and `vlr_edges`, the
        mean over these priors' edges of KL(teacher || student) at temperature 1, nats; nan without a prior."""
        found: dict[str, list[float]] = {}
        priors = np.array(share_of(seen[0]).priors.counts) * batch_size
        regions = {
            "main": [share_of(part).objects >= 0 for part in seen],
            "vlr": [self._valuable(share_of(part)) for part in seen],
        }
        for name, cells in regions.items():
            whole = _per_level(seen, cells)
            own = np.sum([_sums(part, region) for part, region in zip(seen, cells)], axis=0)
            sums = np.sum([_sums(part, region, _apart(part, region)) for part, region in zip(seen, cells)], axis=0)
            found[f"{name}_region"] = (own / priors).tolist()
            found[f"{name}_edges"] = np.where(whole > 0, sums / np.maximum(whole, 1), np.nan).tolist()
        return found

    def _valuable(self, share: Share) -> np.ndarray:
        """(n,A) what each prior counts in the valuable localization region."""
        boxes, config = share.priors.boxes, self.config.vlr
        found = []
        for truth, thresholds in zip(share.truth, share.thresholds):
            there = truth[:, 4] >= 0
            region = valuable(
                boxes,
                truth[there, :4].astype(np.float64),
                thresholds[there],
                config.gamma,
                config.overlap,
                config.weight,
            )
            found.append(region)
        return np.stack(found) * (share.objects != UNUSED)

    def _edges(self, part: Seen, cells: np.ndarray, factor: float, scored: bool) -> NDArray:
        """Sum over a region (n,A) of factor x what a prior counts there x its edges' divergence.

        scored: a prior counts as much as the student's best class score there; else what `cells` has.
        """
        assert part.outputs is not None  # `needs`
        teacher, student = part.outputs
        rows = _rows(cells, student.boxes)
        if rows is None:
            return 0 * nd.sum(student.boxes.slice_axis(axis=2, begin=0, end=1))
        each = edge_divergence(taken(student.boxes, rows), taken(teacher.boxes, rows), self.config.ld.temperature)
        if scored:
            counted = weights(student.classes, rows)
        else:
            counted = nd.array(cells[cells > 0], ctx=each.context, dtype=each.dtype)
        return nd.sum(each * counted) * factor

    def _classes(self, part: Seen, cells: np.ndarray, shares: np.ndarray) -> NDArray:
        """Sum over a region (n,A) of the share of a prior's level x its classes' divergence."""
        assert part.outputs is not None  # `needs`
        teacher, student = part.outputs
        rows = _rows(cells, student.classes)
        if rows is None:
            return 0 * nd.sum(student.classes.slice_axis(axis=2, begin=0, end=1))
        each = divergence(taken(student.classes, rows), taken(teacher.classes, rows), self.config.kd.temperature)
        return nd.sum(each * nd.array(shares[_levels(part)[np.nonzero(cells)[1]]], ctx=each.context, dtype=each.dtype))


def share_of(part: Seen) -> Share:
    """What GFL's loss knows of the samples on a device."""
    assert part.assigned is not None  # `needs`
    share: Share = part.assigned["share"]
    return share


def _rows(cells: np.ndarray, logits: NDArray) -> NDArray | None:
    """Numbers of the rows sample * A + prior of a region (n,A); None where it is empty, which MXNet cannot take."""
    rows = np.flatnonzero(cells)
    return nd.array(rows, ctx=logits.context, dtype="int32") if len(rows) else None


def _levels(part: Seen) -> np.ndarray:
    """(A,) the level of each prior, from 0."""
    counts = share_of(part).priors.counts
    return np.repeat(np.arange(len(counts)), counts)


def _per_level(seen: Sequence[Seen], regions: Sequence[np.ndarray]) -> np.ndarray:
    """Priors of a region on each level in the whole batch of all workers."""
    found = [_sums(part, cells) for part, cells in zip(seen, regions)]
    return np.array(here().total(np.sum(found, axis=0).tolist()))


def _sums(part: Seen, cells: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Of each level the sum of values, one a prior of a region (n,A), sample after sample; None: their number."""
    levels = _levels(part)
    return np.bincount(levels[np.nonzero(cells)[1]], values, minlength=levels[-1] + 1)


def _apart(part: Seen, cells: np.ndarray) -> np.ndarray:
    """Of each prior of a region (n,A) the mean over its edges of KL(teacher || student). Waits for the device."""
    assert part.outputs is not None  # `needs`
    teacher, student = part.outputs
    rows = _rows(cells, student.boxes)
    if rows is None:
        return np.empty(0)
    own, wanted = (taken(one.boxes, rows).reshape((4 * len(rows), -1)) for one in (student, teacher))
    return divergence(own, wanted, 1.0).asnumpy().reshape(-1, 4).mean(axis=1)
