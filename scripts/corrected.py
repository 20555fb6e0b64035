#!/usr/bin/env python3
"""Comparisons of a published study with the error pooled over its arms, from the copies in its report's folder.

    python scripts/corrected.py STUDY FOLDER

It writes corrected.md and corrected.html into FOLDER, where `study STUDY --out FOLDER` left ARM/seed-S.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gan_kd.errors import UserError
from gan_kd.report import page
from gan_kd.report.run import read_run
from gan_kd.study.load import load
from gan_kd.study.report.comparisons import comparisons


def last_map(folder: Path) -> float | None:
    """mAP in percent after the last epoch of the run that was copied there; None where its log ends before.

    UsageError where the folder holds no run.
    """
    run = read_run(folder)
    name, stage = list(run.recipe["stages"].items())[-1]
    network = run.networks[stage["trains"]]
    ends = [record for record in network.evals if (record["stage"], record["epoch"]) == (name, stage["epochs"])]
    return network.last_map if ends else None


def write(study: str, folder: Path) -> Path:
    """The page of a shipped study or .yaml file; the path of its HTML. UsageError where a run is missing."""
    name, read = load(study)
    found = {arm: {seed: last_map(folder / arm / f"seed-{seed}") for seed in read.seeds} for arm in read.arms}
    maps = {arm: {seed: value for seed, value in row.items() if value is not None} for arm, row in found.items()}
    seeds = [
        (str(seed), *(f"{found[arm][seed]:.2f}" if seed in maps[arm] else "–" for arm in maps)) for seed in read.seeds
    ]
    blocks = [
        page.Text(
            "The intervals of the report are of each arm's own differences, one a seed, and a spread that happens to "
            "be small makes one narrow. Here the error is pooled over all arms, and the decisive comparisons, which "
            "were named after the runs, are corrected for their number."
        ),
        *comparisons(maps, read),
        page.Section("Seed by seed"),
        page.Table(("seed", *maps), seeds, "r" * (1 + len(maps))),
        page.Text(
            "mAP in percent after the last epoch, from the copies of each run's metrics.jsonl in this folder.", "note"
        ),
        page.Links([("report", "report.html")]),
        page.Section("How it was made"),
        page.Code(f"python scripts/corrected.py {study} {folder}", "sh"),
    ]
    return page.write(folder, f"Study {name.stem}, error pooled", blocks, "corrected")


def main(argv: Sequence[str]) -> int:
    """0, and 2 with a sentence for what the user can mend."""
    parser = argparse.ArgumentParser(prog="corrected.py", description=__doc__.splitlines()[0])
    parser.add_argument("study", metavar="STUDY", help="shipped, or a .yaml file")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="of the study's report, with the copies")
    arguments = parser.parse_args(argv)
    try:
        print(write(arguments.study, arguments.folder))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
