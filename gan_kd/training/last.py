"""What was measured of a network's last epoch, whose parameters no file keeps once the run is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gan_kd.report.run import read_run
from gan_kd.system.files import write_json
from gan_kd.system.untrusted import read_json

LAST = "last.json"


def write_last(folder: Path, step: int, also: dict[str, float | None]) -> None:
    """Keep in a network's folder the further measures `also`, percent, of its parameters after `step` batches."""
    write_json(folder / LAST, {"step": step, "also": also})


def last_epoch(run: Path, network: str) -> dict[str, Any]:
    """eval.json's `last_map` and `also_last`, percent: the measures of a network's last epoch, beside its best's.

    Each is None for a teacher that was not trained in the run folder `run`, `also_last` in a run from before it was
    measured as well.
    """
    evals = read_run(run).networks[network].evals
    if not evals:
        return {"last_map": None, "also_last": None}
    try:
        kept = read_json(run / network / LAST)
        # One of another step is not of the epoch that `last_map` is of.
        also = kept["also"] if kept["step"] == evals[-1]["step"] else None
    except (OSError, ValueError, KeyError, TypeError):
        also = None
    return {"last_map": evals[-1].get("map"), "also_last": also}
