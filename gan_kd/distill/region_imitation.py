"""Imitation of the pyramid's maps in a region of their cells: rivals of Localization Distillation in its table 3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mxnet import autograd, nd
from mxnet.ndarray import NDArray

from gan_kd.detectors.gfl.loss import decode, integral
from gan_kd.detectors.gfl.priors import Priors
from gan_kd.detectors.gfl.transform import UNUSED
from gan_kd.distill.base import Compared, Distiller, Seen
from gan_kd.distill.general_instances import general_instances
from gan_kd.distill.localization import share_of
from gan_kd.distill.localization_losses import map_difference
from gan_kd.distill.localization_regions import inside
from gan_kd.distill.regions import fine_grained_masks
from gan_kd.distributed.cluster import here
from gan_kd.gluon.sync_bn import summed
from gan_kd.recipe import RegionImitation as Config


class RegionImitation(Distiller):
    """Mean squared difference of student's and teacher's maps over a region's cells and the channels, levels added.

    A level counts in batches with a positive prior on it, as in the published program. Regions: `whole` map (FitNets),
    `inside` an object's box, `main` (positive priors), `fine_grained` (arXiv 1906.03609), `general` instances (arXiv
    2103.02340), which are chosen in each image by itself.
    """

    name = "region_imitation"
    needs: tuple[str, ...] = ("outputs", "assigned", "priors")

    def __init__(self, config: Config, compared: Compared) -> None:
        self.config = config
        if config.region != "general":
            self.needs = ("assigned", "priors")

    def shares(self, seen: Sequence[Seen], batch_size: int) -> dict[str, list[NDArray]]:
        """`weight` x the sum over levels of the mean over the region's cells in the whole batch."""
        made = share_of(seen[0]).priors
        regions = [self._region(part, made) for part in seen]  # (n,A) each, 0 or 1
        levels, losses = _levels(made), []
        positive = here().total(
            [sum(np.count_nonzero(share_of(part).objects[:, a:b] >= 0) for part in seen) for a, b in levels]
        )
        with autograd.pause():
            cells = summed([nd.stack(*[nd.sum(region[:, a:b]) for a, b in levels]) for region in regions])[0]
            cells = nd.maximum(here().sum("cells", cells), 1)
        for part, region in zip(seen, regions):
            counts = cells.as_in_context(region.context)
            terms = []
            for k, (a, b) in enumerate(levels):
                mask = region[:, a:b].reshape(part.student[k].shape[:1] + (1,) + part.student[k].shape[2:])
                weight = self.config.weight * (positive[k] > 0)
                terms.append(map_difference(part.student[k], part.teacher[k], mask) * weight / counts[k])
            losses.append(nd.add_n(*terms))
        return {self.name: losses}

    def diagnose(self, seen: Sequence[Seen], batch_size: int) -> dict[str, list[float]]:
        """And `region_cells`: of each level the share of its cells that is in the region."""
        made = share_of(seen[0]).priors
        regions = [self._region(part, made).asnumpy() for part in seen]
        shares = [
            sum(float(region[:, a:b].sum()) for region in regions) / (batch_size * (b - a)) for a, b in _levels(made)
        ]
        return {**super().diagnose(seen, batch_size), "region_cells": shares}

    def _region(self, part: Seen, made: Priors) -> NDArray:
        """(n,A) 0 or 1."""
        share, kind = share_of(part), self.config.region
        if kind == "general":
            return _general(part, made)
        if kind == "main":
            cells = share.objects >= 0
        elif kind == "whole":
            cells = share.objects != UNUSED
        else:
            cells = np.stack([_around(kind, made, truth[truth[:, 4] >= 0, :4]) for truth in share.truth])
        return nd.array(cells, ctx=part.student[0].context, dtype=part.student[0].dtype)


def _around(kind: str, made: Priors, boxes: np.ndarray) -> np.ndarray:
    """(A,) bool: cells inside of boxes (G,4), or fine-grained ones."""
    if kind == "inside":
        return inside(made.centres, boxes)
    return fine_grained_masks([made.boxes.reshape(-1, 1, 1, 4)], boxes)[0].ravel()


def _general(part: Seen, made: Priors) -> NDArray:
    """(n,A) 0 or 1: general instances of each level."""
    assert part.outputs is not None  # `needs`
    like = part.outputs[0].boxes
    centres = nd.array(made.centres / made.strides[:, None], ctx=like.context, dtype=like.dtype)
    found = []
    with autograd.pause():
        arrays = [one.classes for one in part.outputs]
        for logits in (one.boxes for one in part.outputs):
            samples, cells, width = logits.shape
            distances = integral(logits.reshape((-1, width)))
            arrays.append(decode(nd.tile(centres, (samples, 1)), distances).reshape((samples, cells, 4)))
        for a, b in _levels(made):
            found.append(general_instances(*(array.slice_axis(axis=1, begin=a, end=b) for array in arrays)))
        return nd.concat(*found, dim=1)


def _levels(made: Priors) -> list[tuple[int, int]]:
    """First prior of each level, and the first that is no longer of it."""
    ends = np.cumsum(made.counts).tolist()
    return list(zip([0, *ends], ends))
