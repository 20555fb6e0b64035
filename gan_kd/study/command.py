"""The command `study`: arguments, and what the screen says at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gan_kd.errors import INTERRUPTED, RunError, UsageError
from gan_kd.shell import command_line
from gan_kd.study.load import show
from gan_kd.study.plan import check_inputs, make_plan

ABOUT = """Train a matrix of recipes x seeds, one run after the other, and compare them seed by seed.
What is done is skipped and what was interrupted goes on, so that the same command finishes a study that was stopped
or killed. The report is written after every run."""


def main(argv: Sequence[str]) -> int:
    """Run the study that the arguments name; 0, 1 where runs failed, 130 where it was stopped."""
    arguments = _parser().parse_args(argv)
    if arguments.study is None:
        print(show())
        return 0
    plan = make_plan(arguments.study, arguments.set, arguments.save_prefix)
    from gan_kd.report.study import make_study_report  # Matplotlib and OpenCV take a second to load

    def report() -> Path:
        try:
            return make_study_report(plan, arguments.out)
        except OSError as error:
            folder = arguments.out or plan.folder
            raise RunError(
                f"cannot write the report to {folder}: {error.strerror}; name another folder with --out"
            ) from error

    if arguments.report_only:
        if not any(job.read() for job in plan.all_jobs):
            raise UsageError(
                f"{plan.prefix} holds no run of the study {plan.name}: name their folder with --save-prefix"
            )
        print(f"report: {report()}")
        return 0
    from gan_kd.stop import Stopped
    from gan_kd.study.runner import run_study

    check_inputs(plan)
    report()  # what cannot be written is found now, not after the first run
    try:
        failed = run_study(plan, arguments.jobs, report, lambda line: print(line, flush=True))
    except Stopped:
        print(f"stopped and saved; go on with: {command_line('study', *argv)}")
        return INTERRUPTED
    print(f"report: {report()}")
    if failed:
        print(f"error: {len(failed)} of {len(plan.all_jobs)} runs failed:", *failed, sep="\n  ", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gan_kd study", description=ABOUT)
    parser.add_argument("study", nargs="?", metavar="STUDY", help="shipped, or a .yaml file; none lists the shipped")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of all recipes")
    parser.add_argument("--save-prefix", type=Path, default=Path("runs"), help="folder of all runs (%(default)s)")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs side by side, each on its own CPU cores (1); keep it for the whole study, for the number of threads "
        "rounds sums in another way",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write the report there, with copies of the logs (SAVE_PREFIX/studies/STUDY)",
    )
    parser.add_argument("--report-only", action="store_true", help="train nothing: write the report of what is there")
    return parser
