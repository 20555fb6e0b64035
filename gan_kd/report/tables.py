"""The published tables as a page: each published number beside the one measured here, or why there is none."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gan_kd.report import page
from gan_kd.report.cells import Cell, Differences, Group, Measurement, Source, baseline, collect
from gan_kd.report.published import TABLES, for_recipe
from gan_kd.report.single import DASH, percent
from gan_kd.report.spread import interval95

HEAD = (
    "student", "teacher", "paper, %", "measured, %", "measured\n− paper", "paper's\ngain",
    "measured gain\n[95% interval]", "seeds", "status",
)  # fmt: skip
NOTES = (
    "measured: the run's recipe is the shipped one of the cell in data, splits, size, metric, networks and schedule. "
    "Seed, batch size, devices and the epochs between evaluations may differ, and a local file may stand for a "
    "download; the list of runs names it. measured small: a run of the cell's recipe under other conditions, whose "
    "number is not comparable with the published one. under way: no final evaluation yet.",
    "measured: mean over seeds of the best epoch, which the same images chose; ±: standard deviation (n − 1). "
    "gain: distilled − baseline in points, seed by seed, with Student's t interval of the mean. The baseline is of "
    "the same run, else of a recipe of column none with this seed, data and schedule; the list of runs says which. "
    "The reports of the runs have the last epoch too.",
)


def make_tables(sources: Sequence[Source], out: Path, not_run: str | None = None) -> Path:
    """Write tables.html and tables.md into `out`, linked to the reports, logs and recipes of `sources`.

    not_run: the reason given for cells without a run; default: that no run of the cell's recipe was given. Returns
    the path of tables.html. Raises UsageError where the recipe of a run with a place in a table cannot be read.
    """
    cells = collect(sources)
    out.mkdir(parents=True, exist_ok=True)
    blocks: list[page.Block] = [page.Text(_finding(cells), "lead")]
    for table in (1, 2, 3):
        own = [cell for cell in cells if cell.table == table]
        blocks += [page.Section(f"Table {table}"), page.Text(TABLES[table].caption + ".")]
        rows = [row for cell in own for row in _rows(cell, cells, out, not_run)]
        blocks.append(page.Table(HEAD, rows, "llrrrrrll"))
        blocks += [page.Text(text, "note") for cell in own for text in _remarks(cell)]
    blocks += _imitation()
    blocks += [page.Section("Runs behind the numbers"), *_runs(cells, out)]
    blocks += [*_unplaced(sources, cells), page.Section("How to read it"), *(page.Text(text) for text in NOTES)]
    return page.write(out, "The published tables and what was measured", blocks, "tables")


def _imitation() -> list[page.Block]:
    """What else was published for Fine-grained Feature Imitation, which no recipe is compared with."""
    table = TABLES["fgfi"]
    rows = [[row, *(percent(values[column], 1) for column in table.columns)] for row, values in table.rows.items()]
    return [page.Text(table.caption + "."), page.Table((table.corner, *table.columns), rows, "lrrr")]


def _finding(cells: Sequence[Cell]) -> str:
    found = [cell.status for cell in cells]
    text = f"{found.count('measured')} of {len(cells)} published cells measured, {found.count('measured small')} "
    text += "measured small (not comparable with the published numbers), "
    return text + f"{found.count('under way')} under way, {found.count('not run here')} not run here."


def _rows(cell: Cell, cells: Sequence[Cell], out: Path, not_run: str | None) -> list[Sequence[page.Cell]]:
    """One row for each set of conditions that was run, or the one that says why there is none."""
    paper, gain = percent(cell.published, 1), percent(cell.gain, 1, sign=True)
    if not cell.groups:
        reason = not_run or f"no run of recipe {cell.recipe.name} in the folders given"
        status = f"not run here ({reason})"
        return [(cell.row, cell.column, paper, DASH, DASH, gain, DASH, DASH, status)]
    rows: list[Sequence[page.Cell]] = []
    for group in cell.groups:
        maps = [run.map for run in group.runs if run.map is not None]
        apart = percent(statistics.fmean(maps) - cell.published, 2, sign=True) if maps else DASH
        rows.append((
            cell.row, cell.column, paper, _mean(maps), "not\ncomparable" if maps and group.other else apart, gain,
            _gain(cell, group, cells), _seeds(group, out), _status(group),
        ))  # fmt: skip
    return rows


def _status(group: Group) -> str:
    if not group.other:
        return group.status
    keys = list(group.other)
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{group.status}, not comparable: other {', '.join(keys[:3])}{more}"


def _mean(maps: Sequence[float]) -> str:
    if not maps:
        return DASH
    return percent(statistics.fmean(maps)) + (f" ± {statistics.stdev(maps):.2f}" if len(maps) > 1 else "")


def _seeds(group: Group, out: Path) -> page.Cell:
    """Number of evaluated seeds, then each seed as a link to its report."""
    done = [run for run in group.runs if run.map is not None]
    parts: list[str | page.Link] = [str(len(done))]
    for label, runs in ((": ", done), ("\nunder way: ", [run for run in group.runs if run.map is None])):
        for index, run in enumerate(runs):
            parts += [", " if index else label, _link(str(run.seed), run.source.report, out)]
    return parts


def _gain(cell: Cell, group: Group, cells: Sequence[Cell]) -> str:
    """Mean difference to the paired baselines and its interval."""
    done = [run for run in group.runs if run.map is not None]
    if cell.column == "none" or not done:
        return DASH
    found = [apart for apart, _ in (_pair(run, cell, cells) for run in done) if apart is not None]
    if not found:
        return "no baseline of this\nseed and schedule"
    mean, low, high, seeds = interval95(found)
    text = percent(mean, sign=True)
    text += "\n(one seed)" if math.isnan(low) else f"\n[{percent(low, sign=True)}, {percent(high, sign=True)}]"
    return text if seeds == len(done) else f"{text}\n{seeds} of {len(done)} seeds\nhave a baseline"


def _pair(run: Measurement, cell: Cell, cells: Sequence[Cell]) -> tuple[float | None, Measurement | None]:
    """Distilled − baseline in points and the baseline; None, None in column none and where either is missing."""
    if cell.column == "none":
        return None, None
    alone = next(one for one in cells if (one.table, one.row, one.column) == (cell.table, cell.row, "none"))
    found = baseline(run, [one for group in alone.groups for one in (*group.runs, *group.spare)])
    if found is None or found.map is None or run.map is None:
        return None, None
    return run.map - found.map, found


def _remarks(cell: Cell) -> list[str]:
    """What differs in each small group of the cell, and the note on a baseline that may be copied."""
    remarks = []
    for group in cell.groups:
        if group.other:
            seeds = ", ".join(str(run.seed) for run in group.runs)
            remarks.append(
                f"{_title(cell)}, small (seed {seeds}): differs from recipe {cell.recipe.name} (its values in "
                f"brackets) in {_told(group.other)}."
            )
    if cell.column == "none":
        row = for_recipe({"published": {"table": cell.table, "row": cell.row, "column": "none"}})
        remarks += [f"{cell.row}: {row.note}"] if row is not None and row.note else []
    return remarks


def _runs(cells: Sequence[Cell], out: Path) -> list[page.Block]:
    """Every run of a cell with its number, the baseline it was paired with, and its files."""
    rows = []
    for cell in cells:
        for group in cell.groups:
            rows += [_run(run, "", cell, cells, out) for run in group.runs]
            rows += [_run(run, "not counted: another run of this seed is", cell, cells, out) for run in group.spare]
    if not rows:
        return [page.Text("No run in the folders given has a place in these tables.")]
    head = ("table: cell", "run", "%", "gain", "baseline", "commit", "files", "remarks")
    return [page.Table(head, rows, "llrrllll")]


def _run(run: Measurement, remark: str, cell: Cell, cells: Sequence[Cell], out: Path) -> list[page.Cell]:
    source, apart, alone = run.source, *_pair(run, cell, cells)
    files: list[str | page.Link] = [_link("report", source.report, out)]
    for text, name in (("log", "train.log"), ("recipe", "recipe.yaml")):
        if (source.evidence / name).is_file():
            files += [", ", _link(text, source.evidence / name, out)]
    used: page.Cell = DASH
    if alone is not None:
        used = "same run" if alone.source is source else [_link(_named(alone), alone.source.report, out)]
    state = "under way" if run.map is None else "small" if run.other else ""
    return [
        f"{cell.table}: {_title(cell)}",
        _named(run),
        DASH if run.map is None else [_link(percent(run.map), source.report, out)],
        percent(apart, sign=True),
        used,
        str(source.run.networks[run.network].eval.get("commit") or "not recorded")[:13],
        files,
        "; ".join(filter(None, (state, _told(run.free), remark))),
    ]


def _unplaced(sources: Sequence[Source], cells: Sequence[Cell]) -> list[page.Block]:
    """The sentence that names the recipes whose runs belong to no cell."""
    placed = {id(run.source) for cell in cells for group in cell.groups for run in (*group.runs, *group.spare)}
    left = dict.fromkeys(source.run.name for source in sources if id(source) not in placed)
    if not left:
        return []
    return [page.Text(f"Runs of recipes without a place in the tables are not shown: {', '.join(left)}.", "note")]


def _title(cell: Cell) -> str:
    return f"{cell.row} alone" if cell.column == "none" else f"{cell.row} ← {cell.column}"


def _named(run: Measurement) -> str:
    return f"{run.recipe.name}, seed {run.seed}"


def _link(text: str, file: Path, out: Path) -> page.Link:
    return page.Link(text, os.path.relpath(file, out))


def _told(differences: Differences) -> str:
    """Differing keys with the value here and the shipped one in brackets; the seed is told elsewhere."""
    pairs = ((key, values) for key, values in differences.items() if key != "train.seed")
    return ", ".join(f"{key} {_value(here)} ({_value(shipped)})" for key, (here, shipped) in pairs)


def _value(value: Any) -> str:
    """A value in a sentence: lists in brackets, files by their name, since pages hold no path of a machine."""
    if isinstance(value, dict):
        return "a stage"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return f"[{', '.join(map(_value, value))}]"
    text = "null" if value is None else str(value)
    return Path(text).name if text.startswith(("/", "~")) else text
