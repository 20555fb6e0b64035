"""No file from a stranger brings the interpreter down: damaged files of every kind, read in child processes."""

from __future__ import annotations

import pytest

from tests.fuzz.harness import work_through
from tests.fuzz.kinds import KINDS
from tests.fuzz.test_values import DRAWN


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused_in_a_sentence(kind, tmp_path):
    outcomes = work_through(kind, tmp_path / kind)
    assert len(outcomes) == KINDS[kind].cases
    bad = [outcome for outcome in outcomes if outcome.outcome not in ("accepted", "refused")]
    assert not bad, "\n".join(f"{it.case}: {it.outcome}, {it.said}" for it in bad[:20])
    sound = {outcome.outcome for outcome in outcomes if outcome.case.endswith(", sound")}
    # A real annotation is of another image than the one drawn here.
    assert sound == {"accepted"} or kind == "xml" and outcomes[0].outcome == "accepted"
    assert "refused" in {outcome.outcome for outcome in outcomes}


def test_there_are_enough_of_them():
    """With the values that tests/fuzz/test_values.py draws."""
    assert sum(kind.cases for kind in KINDS.values()) >= 2400
    assert sum(kind.cases for kind in KINDS.values()) + DRAWN >= 3000
