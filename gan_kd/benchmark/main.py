"""The command line of scripts/benchmark.py: which benchmarks run, and where their figures go."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from gan_kd.benchmark.timing import Result

#: Name -> module of gan_kd.benchmark whose `run(rounds)` gives a list of Results. Each is imported when its turn
#: comes: MXNet, PyTorch and what they do to threads stay out of the others.
BENCHMARKS = {
    "loader": "loader",
    "step": "step",
    "field": "field",
    "voc_ap": "voc_ap",
    "eval": "evaluation",
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/benchmark.py", description=__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=5, help="how often all are timed in turn (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ratios there")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write a page with table and plot (results/benchmark)"
    )
    arguments = parser.parse_args(argv)
    results: list[Result] = []
    for name in arguments.only or BENCHMARKS:
        module = importlib.import_module(f"gan_kd.benchmark.{BENCHMARKS[name]}")
        for result in module.run(arguments.rounds):
            results.append(result)
            print(line(result), flush=True)
            for note in result.notes:
                print(f"    {note}", flush=True)
    if arguments.json:
        figures = {result.key: round(result.ratio, 4) if result.ratios else None for result in results}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def line(result: Result) -> str:
    """A result as one line: key, ratio with its quartiles, and the aim."""
    if not result.ratios:
        return f"{result.key:<24}not run here"
    low, high = result.spread
    bound = f"aim: at {'least' if result.at_least else 'most'} {result.aim:g}"
    reached = "reached" if result.reached else "not reached"
    return f"{result.key:<24}{result.ratio:7.2f}  ({low:.2f} to {high:.2f})  {bound}, {reached}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
