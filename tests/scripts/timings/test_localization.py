"""The benchmark of Localization Distillation: every term is in the step that is timed."""

from __future__ import annotations

import numpy as np

from scripts.timings import localization


def test_the_figure_is_of_a_step_with_positive_priors() -> None:
    batch = localization.random_batch(2, 128)
    objects = np.asarray(batch.targets[0])
    assert (objects >= 0).any(axis=1).all() and objects.max() == 1, "the second image has two objects"
    figures = localization.measure(1, 128, 2, 8)
    assert [(figure.key, figure.aim, figure.at_least) for figure in figures] == [
        ("ld_step_over_parts", 1.05, False), ("ld_step_remembered", 1.1, False),
    ]  # fmt: skip
    for figure in figures:
        assert figure.ratio > 0
        assert set(figure.details) == {"LD, s", "LD, remembered, s", "student, s", "teacher, s"}
