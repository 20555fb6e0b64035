"""Reports as files: report.html and report.md of one run, and of several seeds; tables.html and tables.md of all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from gan_kd.errors import UsageError
from gan_kd.report import page
from gan_kd.report.cells import Source
from gan_kd.report.run import Run, find_runs, read_run
from gan_kd.report.single import EVIDENCE, blocks
from gan_kd.report.summary import make_summary
from gan_kd.report.tables import make_tables


def make_report(run_dir: Path, out: Path | None = None, photos: bool = True) -> Path:
    """Write the report of `run_dir` into `out` (default: its folder `report`); the path of report.html.

    photos: with the page of the data set's images, which not every licence allows to pass on.
    The run may be unfinished: the page names what is missing. Raises UsageError where there is no run.
    """
    run = read_run(run_dir)
    folder = run_dir / "report" if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    return page.write(folder, f"{run.name}, seed {run.seed}", blocks(run, folder, photos))


def main(paths: Sequence[Path], out: Path | None = None, photos: bool = True, not_run: str | None = None) -> list[Path]:
    """Reports of every run at or below `paths`, one over the seeds of each recipe that has several, the tables.

    Without `out` they go into the run folders. With it, `out/RECIPE` (slashes as dashes) gets the report and
    copies of the recipe, the metrics and the log; of several seeds, the summary, and below it such a folder
    for each. The published tables beside the measured ones, where there are several recipes or a run has a
    place in them, are tables.html in `out` or the first of `paths` (of a run: its folder `report`); not_run: why
    cells are empty. Prints the path of every page and returns them, summaries and tables last. Raises UsageError
    where a path holds no run, or where two runs are the same seed of a recipe.
    """
    sources, pages = [], []
    recipes = _by_recipe(paths, out)
    for name, seeds in recipes.items():
        results = None if out is None else out / name.replace("/", "-")
        single = [_single(run, results, len(seeds) > 1, photos) for run in seeds]
        sources += single
        if len(seeds) > 1:
            pages.append(_summary(seeds, [one.report for one in single], results))
    if len(recipes) > 1 or any(source.run.recipe.get("published") for source in sources):
        first = paths[0] / "report" if (paths[0] / "recipe.yaml").is_file() else paths[0]
        pages.append(make_tables(sources, out or first, not_run))
    return _told([*(source.report for source in sources), *pages])


def summarise(paths: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Of every recipe at or below `paths` the page over its seeds alone, linked to each seed's log.

    As `main`, but `out/RECIPE/seed-SEED` holds the copies of a run's files without a report of it.
    """
    pages = []
    for name, seeds in _by_recipe(paths, out).items():
        results = None if out is None else out / name.replace("/", "-")
        logs = []
        for run in seeds:
            logs.append((run.folder if results is None else results / f"seed-{run.seed}") / "train.log")
            if results is not None:
                _copy_evidence(run.folder, logs[-1].parent)
        pages.append(_summary(seeds, logs, results))
    return _told(pages)


def _by_recipe(paths: Sequence[Path], exclude: Path | None) -> dict[str, list[Run]]:
    """The runs at or below `paths` by recipe, in the order of their seeds."""
    recipes: dict[str, dict[int, Run]] = {}
    for folder in find_runs(paths, exclude=exclude):
        run = read_run(folder)
        other = recipes.setdefault(run.name, {}).setdefault(run.seed, run)
        if other is not run:
            raise UsageError(f"{other.folder} and {folder} are both seed {run.seed} of {run.name}; name one of them")
    return {name: [seeds[seed] for seed in sorted(seeds)] for name, seeds in recipes.items()}


def _summary(seeds: Sequence[Run], linked: Sequence[Path], results: Path | None) -> Path:
    folders = [run.folder for run in seeds]
    return make_summary(folders, linked, results or folders[0].parent / "report")


def _told(pages: list[Path]) -> list[Path]:
    for path in pages:
        print(f"report: {path}")
    return pages


def _single(run: Run, results: Path | None, several: bool, photos: bool) -> Source:
    """The report of one run, in `results` or in a folder for its seed below, else in the run's own."""
    if results is None:
        return Source(run, make_report(run.folder, None, photos), run.folder)
    target = results / f"seed-{run.seed}" if several else results
    _copy_evidence(run.folder, target)
    return Source(run, make_report(run.folder, target, photos), target)


def _copy_evidence(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in EVIDENCE:
        if (folder / file).is_file():
            shutil.copyfile(folder / file, target / file)
