"""Where our training step spends its time: `python -m scripts.timings.operators BACKBONE PX BATCH` (mx.profiler)."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

# Else MXNet runs operators in bulk and the profiler sees the bulks. Read when MXNet is loaded.
os.environ["MXNET_EXEC_BULK_EXEC_TRAIN"] = "0"

from mxnet import profiler

from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.network import join, split
from scripts.timings import field
from scripts.timings.step import random_batch


def shares(step: Callable[[], object], steps: int = 3) -> dict[str, float]:
    """Percent of the operators' time that each operator takes, largest first; the step waits for its arrays."""
    step()  # compiles and allocates
    with tempfile.TemporaryDirectory() as folder:
        profiler.set_config(profile_all=True, aggregate_stats=True, filename=str(Path(folder) / "profile.json"))
        profiler.set_state("run")
        for _ in range(steps):
            step()
        profiler.set_state("stop")
    milliseconds: dict[str, float] = {}
    for line in profiler.dumps(reset=True).splitlines():
        # name, calls, total and further columns; MX...: calls of the interface, which wait for operators
        name, *columns = line.split() or [""]
        if len(columns) == 5 and columns[0].isdigit() and not name.startswith(("MX", "Delete", "CPU:")):
            milliseconds[name] = float(columns[1])
    total = sum(milliseconds.values())
    return {name: 100 * each / total for name, each in sorted(milliseconds.items(), key=lambda item: -item[1])}


def main(backbone: str, size: int, batch: int) -> None:
    detector = join(*split(zoo.build(backbone, size, field.CLASSES)))
    samples = random_batch(batch, size, len(detector.head.anchors(detector.extractor.sizes)))
    print(
        f"Training step of SSD{size} {backbone}, batch {batch}, {field.threads()} OpenMP threads, % of operators' time:"
    )
    for name, share in shares(field.our_step(detector, samples)).items():
        if share >= 0.5:
            print(f"{share:6.1f}  {name}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
