"""The page of the benchmark: benchmark.json with every result, and benchmark.md and benchmark.png made from it.

Results of several calls add up in the JSON file, each with the commit, date and machine it was measured with.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from gan_kd.errors import RunError, UsageError
from gan_kd.report.page import Block, Figure, Section, Table, Text
from gan_kd.system.strict_json import dumps
from gan_kd.system.timing import Result

DATA, PAGE, PLOT = "benchmark.json", "benchmark.md", "benchmark.png"
PACKAGES = ("mxnet", "gluoncv", "numpy", "opencv-python-headless", "opencv-python", "torch")
GIB = 2**30

Records = dict[str, dict[str, Any]]  # by key: "result" (or the name of a table) and "environment"


def open_records(folder: Path) -> Records:
    """What earlier calls left in the folder, which is made; UsageError or RunError where that cannot be used."""
    file = folder / DATA
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            return {}
        records = json.loads(file.read_text())
        _results(records)
    except OSError as error:
        raise RunError(f"--out {folder} cannot be used: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UsageError(f"{file} is not a file of this benchmark; name another folder with --out") from error
    return records


def save_records(folder: Path, records: Records) -> None:
    """Write benchmark.json; RunError where it cannot be written."""
    try:
        (folder / DATA).write_text(dumps(records, indent=1) + "\n")
    except OSError as error:
        raise RunError(f"{folder / DATA} cannot be written: {error.strerror}") from error


def plain(result: Result) -> dict[str, Any]:
    """A result as JSON takes it."""
    return {**dataclasses.asdict(result), "ratios": list(result.ratios), "notes": list(result.notes)}


def environment(command: str) -> dict[str, Any]:
    """What a figure depends on beside the code: commit, day, processor, cores, threads, memory, packages."""
    from gan_kd.system.machine import machine
    from gan_kd.system.version import commit

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    here = machine()
    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": command,
        "cpu": here["cpu"],
        "cores used": len(os.sched_getaffinity(0)),
        "cores": here["cores"],
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "memory, GiB": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB, 1),
        "python": here["python"],
        "packages": versions,
    }


def write(folder: Path, records: Records) -> Path:
    """Write the data, the plot and the page; the path of the page. RunError where they cannot be written."""
    from scripts.timings.plot import ratios_against_aims

    save_records(folder, records)
    results = _results(records)
    run = [result for result in results.values() if result.ratios]
    blocks: list[Block] = [
        Text(
            f"{sum(result.reached for result in run)} of {len(run)} figures that were measured reach their aim.", "lead"
        ),
        Text(
            "Each figure is a ratio of two things timed in turn on the same cores, round by round: the median over "
            "the rounds and the quartiles. Times on a shared machine mean little by themselves.",
        ),
        _overview(results),
    ]
    try:
        if ratios_against_aims(run, folder / PLOT):
            caption = "Dot: median, bar: quartiles, vertical line: the aim. The axis is logarithmic."
            blocks.append(Figure(PLOT, "Ratios of the benchmark and their aims", caption))
        for key, result in results.items():
            blocks += [Section(key), Text(result.what.rstrip(".") + "."), *_details(result)]
            blocks.append(Text(_in_words(records[key]["environment"]), "note"))
        for name, table in TABLES.items():
            if name in records:
                blocks += [Section(name.capitalize()), *table(records[name][name])]
                blocks.append(Text(_in_words(records[name]["environment"]), "note"))
        page = folder / PAGE
        page.write_text("\n\n".join(["# Speed", *(block.markdown() for block in blocks)]) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"the page in {folder} cannot be written: {error.strerror}") from error
    return page


def growth(grown: Mapping[str, Any]) -> list[Block]:
    """Tables of the measured points, the fitted model and what it says of more devices."""
    residuals = {
        tuple(point.values()): (seconds, memory)
        for point, seconds, memory in zip(
            grown["fit"]["of"], grown["fit"]["seconds"]["residuals"], grown["fit"]["bytes"]["residuals"]
        )
    }
    points = []
    for point in grown["points"]:
        fitted = point["workers"] is None and len(point["contexts"]) == 1
        off = residuals[point["grows"], point["batch"], point["size"], point["classes"]] if fitted else None
        points.append(
            [
                point["grows"],
                str(point["batch"]),
                str(point["size"]),
                str(point["classes"]),
                ", ".join(point["contexts"]),
                "noise" if point["workers"] is None else str(point["workers"]),
                f"{point['images/s']:.1f}",
                f"{point['bytes'] / GIB:.2f}",
                *(f"{100 * value:+.0f}" for value in off or ()),
                *([] if off else ["", ""]),
            ]
        )
    seconds, memory = (grown["fit"][key]["terms"] for key in ("seconds", "bytes"))
    predicted = [
        [
            f"{row['assumed speed']:g}",
            str(row["devices"]),
            f"{row['seconds']:.2f}",
            f"{1000 * row['allreduce seconds']:.1f}",
            f"{row['images/s']:.0f}",
            f"{100 * row['efficiency']:.0f}",
        ]
        for row in grown["extrapolation"]
    ]
    return [
        Text(
            f"One training step of SSD on {grown['backbone']} without an adversary, each point in a process of its "
            "own. images/s is of the fastest step in two passes over the points, for what other work on the machine "
            "adds would hide how the step grows; memory is the peak of what is resident, loader workers not counted."
        ),
        Table(
            [
                "grows",
                "batch",
                "px",
                "classes",
                "contexts",
                "workers",
                "images/s",
                "GiB",
                "time off, %",
                "memory off, %",
            ],
            points,
            "lrrrlrrrrr",
        ),
        Text(
            "Fitted by least squares of relative errors to the points with one context and noise for data; 'off' is "
            "model over measurement. With P the pixels of a batch and C the classes: "
            f"seconds = {seconds[0]:.3f} + P ({seconds[1]:.3g} + {seconds[2]:.3g} C), "
            f"bytes = {memory[0]:.3g} + P ({memory[1]:.0f} + {memory[2]:.2f} C)."
        ),
        Text(
            "The next table is an extrapolation: nothing here was measured on a GPU. Data parallel, 32 images of "
            "512 px and 20 classes a device, seconds of a step by the model over an assumed speed of the device (in "
            "multiples of the cores used here), plus an allreduce of the gradients at 10 GB/s that overlaps with "
            "nothing. Loading is taken as fast enough.",
            "warning",
        ),
        Table(
            ["assumed speed", "devices", "step, s", "of it allreduce, ms", "images/s", "efficiency, %"],
            predicted,
            "rrrrrr",
        ),
    ]


def memory(measured: Mapping[str, Any]) -> list[Block]:
    """The slope of resident memory in words, and its samples, ten of them."""
    steps, sizes = measured["step"], measured["bytes"]
    chosen = range(0, len(steps), max(1, len(steps) // 10))
    return [
        Text(
            f"Resident memory of the training process over {steps[-1]} adversarial steps, cosine attention included, "
            f"with loader workers and an evaluation after every {measured['evaluated']} steps: "
            f"{measured['bytes a step'] / 1024:+.2f} KiB a step by least squares after the first "
            f"{measured['settled']}, {measured['growth'] / 2**20:+.1f} MiB from the first of these samples to the last."
        ),
        Table(["step", "MiB"], [[str(steps[k]), f"{sizes[k] / 2**20:.1f}"] for k in chosen], "rr"),
    ]


#: Of what measures no ratio, by name in the command line and in the file.
TABLES: dict[str, Callable[[Mapping[str, Any]], list[Block]]] = {"growth": growth, "memory": memory}


def _results(records: Records) -> dict[str, Result]:
    return {key: Result(**record["result"]) for key, record in records.items() if "result" in record}


def _overview(results: Mapping[str, Result]) -> Table:
    rows = []
    for key, result in results.items():
        low, high = result.spread
        measured = [f"{result.ratio:.2f}", f"{low:.2f} to {high:.2f}"] if result.ratios else ["not run", ""]
        reached = ("yes" if result.reached else "no") if result.ratios else ""
        rows.append([key, *measured, result.bound, reached])
    return Table(["figure", "ratio", "quartiles", "aim", "reached"], rows, "lrrll")


def _details(result: Result) -> list[Block]:
    details = Table(["", ""], [[name, f"{value:.4g}"] for name, value in result.details.items()], "lr")
    return [*([details] if result.details else []), *(Text(note) for note in result.notes)]


def _in_words(environment: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    return (
        f"{environment['date']}, commit {environment['commit']}: {environment['command']}. {environment['cpu']}, "
        f"{environment['cores used']} of {environment['cores']} cores, OMP_NUM_THREADS "
        f"{environment['OMP_NUM_THREADS']}, {environment['memory, GiB']} GiB; Python {environment['python']}, "
        f"{packages}."
    )
