"""Reports as files: report.html and report.md of one run, and of several seeds."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from gan_kd.errors import UsageError
from gan_kd.report import page
from gan_kd.report.run import find_runs, read_run
from gan_kd.report.single import EVIDENCE, blocks
from gan_kd.report.summary import make_summary


def make_report(run_dir: Path, out: Path | None = None, photos: bool = True) -> Path:
    """Write the report of `run_dir` into `out` (default: its folder `report`); the path of report.html.

    photos: with the page of the data set's images, which not every licence allows to pass on.
    The run may be unfinished: the page names what is missing. Raises UsageError where there is no run.
    """
    run = read_run(run_dir)
    folder = run_dir / "report" if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    return page.write(folder, f"{run.name}, seed {run.seed}", blocks(run, folder, photos))


def main(paths: Sequence[Path], out: Path | None = None, photos: bool = True) -> list[Path]:
    """Reports of every run at or below `paths`, and one over the seeds of each recipe that has several.

    Without `out` they go into the run folders. With it, `out/RECIPE` (slashes as dashes) gets the report and
    copies of the recipe, the metrics and the log; of several seeds, the summary, and below it such a folder
    for each. Prints the path of every report.html and returns them, summaries last. Raises UsageError where a
    path holds no run, or where two runs are the same seed of a recipe.
    """
    recipes: dict[str, dict[int, Path]] = {}
    for folder in find_runs(paths, exclude=out):
        run = read_run(folder)
        other = recipes.setdefault(run.name, {}).setdefault(run.seed, folder)
        if other != folder:
            raise UsageError(f"{other} and {folder} are both seed {run.seed} of {run.name}; name one of them")
    reports, summaries = [], []
    for name, seeds in recipes.items():
        results = None if out is None else out / name.replace("/", "-")
        single = []
        for seed, folder in seeds.items():
            target = results / f"seed-{seed}" if results is not None and len(seeds) > 1 else results
            if target is not None:
                _copy_evidence(folder, target)
            single.append(make_report(folder, target, photos))
        reports += single
        if len(seeds) > 1:
            folders = list(seeds.values())
            summaries.append(make_summary(folders, single, results or folders[0].parent / "report"))
    for path in reports + summaries:
        print(f"report: {path}")
    return reports + summaries


def _copy_evidence(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in EVIDENCE:
        if (folder / file).is_file():
            shutil.copyfile(folder / file, target / file)
