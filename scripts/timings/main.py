"""The command line of scripts/benchmark.py: which benchmarks run, and where their figures go."""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from pathlib import Path

from gan_kd.errors import RunError, UsageError, UserError
from gan_kd.system.strict_json import dumps
from gan_kd.system.timing import Result

#: Name -> module of scripts.timings whose `run(rounds)` gives a list of Results. Each is imported when its turn
#: comes: MXNet, PyTorch and what they do to threads stay out of the others.
BENCHMARKS = {
    "loader": "loader",
    "step": "step",
    "field": "field",
    "voc_ap": "voc_ap",
    "eval": "evaluation",
    "accuracy": "accuracy",
    "yolo3": "yolo3",
    "ld": "localization",
}
#: Measure no ratio: `grow(rounds)` of scripts.timings.growth and `measure()` of scripts.timings.memory give tables.
GROWTH, MEMORY = "growth", "memory"


def main(argv: list[str]) -> int:
    """Run what the arguments name; a user's mistake is one line on stderr and its exit code."""
    try:
        _run(_parser().parse_args(argv), shlex.join(["python", "scripts/benchmark.py", *argv]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark.py",
        description="Time this project and its rivals in turn: ratios, their aims, and where the time goes.",
    )
    names = (*BENCHMARKS, GROWTH, MEMORY)
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=5, help="how often all are timed in turn (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ratios there")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="add to the page with table and plot there (results/benchmark)"
    )
    return parser


def _run(arguments: argparse.Namespace, command: str) -> None:
    if arguments.rounds < 1:
        raise UsageError(f"--rounds {arguments.rounds}: nothing can be timed less than once")
    if arguments.json is not None and not arguments.json.resolve().parent.is_dir():
        raise UsageError(f"--json {arguments.json}: its folder is not there; make it first")
    from gan_kd import compat

    compat.set_default_threads()
    from scripts.timings import page

    records = page.open_records(arguments.out) if arguments.out else {}
    results: list[Result] = []
    for name in arguments.only or (*BENCHMARKS, GROWTH, MEMORY):
        module = importlib.import_module(f"scripts.timings.{BENCHMARKS.get(name, name)}")
        if name in (GROWTH, MEMORY):
            table = module.grow(arguments.rounds) if name == GROWTH else module.measure()
            print("\n\n".join(block.markdown() for block in page.TABLES[name](table)), flush=True)
            records[name] = {name: table, "environment": page.environment(command)}
            continue
        for result in module.run(arguments.rounds):
            results.append(result)
            records[result.key] = {"result": page.plain(result), "environment": page.environment(command)}
            print(line(result), flush=True)
            for note in result.notes:
                print(f"    {note}", flush=True)
        if arguments.out:
            page.save_records(arguments.out, records)
    if arguments.out:
        print(f"page: {page.write(arguments.out, records)}")
    if arguments.json:
        figures = {result.key: round(result.ratio, 4) if result.ratios else None for result in results}
        try:
            arguments.json.write_text(dumps(figures, indent=1) + "\n")
        except OSError as error:
            raise RunError(f"--json {arguments.json} cannot be written: {error.strerror}") from error


def line(result: Result) -> str:
    """A result as one line: key, ratio with its quartiles, and the aim."""
    if not result.ratios:
        return f"{result.key:<24}not run here"
    low, high = result.spread
    reached = "reached" if result.reached else "not reached"
    return f"{result.key:<24}{result.ratio:7.2f}  ({low:.2f} to {high:.2f})  aim: {result.bound}, {reached}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
