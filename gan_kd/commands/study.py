"""The command `study`: arguments, and what the screen says at the end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gan_kd.errors import INTERRUPTED, RunError, UsageError
from gan_kd.study.load import show
from gan_kd.study.plan import Plan, check_inputs, make_plan
from gan_kd.study.record import take_up
from gan_kd.system.console import no_bar, tell
from gan_kd.system.console import show as show_line
from gan_kd.system.shell import command_line

ABOUT = """Train a matrix of recipes x seeds, one run after the other, and compare them seed by seed.
What is done is skipped and what was interrupted goes on, so that the same command finishes a study that was stopped
or killed. A study with a search first trains the settings to choose from, on a part of the training images. The report
is written after every run."""


def main(argv: Sequence[str]) -> int:
    """Run the study that the arguments name; 0, 1 where runs failed, 130 where it was stopped."""
    arguments = _parser().parse_args(argv)
    if arguments.study is None:
        print(show())
        return 0
    plan = make_plan(arguments.study, arguments.set, arguments.save_prefix)
    if arguments.report_only:
        if not any(job.read() for job in plan.all_jobs):
            raise UsageError(
                f"{plan.prefix} holds no run of the study {plan.name}: name their folder with --save-prefix"
            )
        print(f"report: {_report(plan, arguments.out)}")
        return 0
    from gan_kd.system.stop import Stopped

    if arguments.out is not None:
        plan = _with_records(plan, arguments)
    try:
        failed = _run(plan, arguments)
        if plan.chosen is None and not failed:
            plan = make_plan(arguments.study, arguments.set, arguments.save_prefix)
            if plan.chosen is not None:
                _say("settings chosen: " + "; ".join(f"{arm} {' '.join(found)}" for arm, found in plan.chosen.items()))
                failed = _run(plan, arguments)
    except Stopped:
        show_line(f"stopped and saved; go on with: {command_line('study', *argv)}")
        return INTERRUPTED
    show_line(f"report: {_report(plan, arguments.out)}")
    if failed:
        tell("\n  ".join([f"error: {len(failed)} of {len(plan.due)} runs failed:", *failed]))
        return 1
    if plan.search is not None and plan.search.hopeless():
        arms = ", ".join(plan.search.hopeless())
        raise RunError(
            f"no trial of {arms} has a number, so that its settings cannot be chosen: give the study other trials and "
            "another --save-prefix"
        )
    return 0


def _with_records(plan: Plan, arguments: argparse.Namespace) -> Plan:
    """The plan once the runs are put back that --out has a record of; a search of them may have chosen by that."""
    taken = 0
    while more := take_up(plan, arguments.out):
        taken += more
        plan = make_plan(arguments.study, arguments.set, arguments.save_prefix)
    if taken:
        _say(f"{taken} finished runs are taken up from their records in {arguments.out}")
    return plan


def _run(plan: Plan, arguments: argparse.Namespace) -> list[str]:
    """Train what is due; a line for each run that failed."""
    from gan_kd.study.runner import run_study

    check_inputs(plan)
    _report(plan, arguments.out)  # what cannot be written is found now, not after the first run
    return run_study(plan, arguments.jobs, lambda: _report(plan, arguments.out), _say)


def _report(plan: Plan, out: Path | None) -> Path:
    from gan_kd.study.report.study import make_study_report  # Matplotlib and OpenCV take a second to load

    try:
        return make_study_report(plan, out)
    except OSError as error:
        raise RunError(
            f"cannot write the report to {out or plan.folder}: {error.strerror}; name another folder with --out"
        ) from error


def _say(line: str) -> None:
    if not no_bar():
        show_line(line)


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
        help="write the report there, with a record of every run, by which the study goes on where SAVE_PREFIX is gone "
        "(SAVE_PREFIX/studies/STUDY)",
    )
    parser.add_argument("--report-only", action="store_true", help="train nothing: write the report of what is there")
    return parser
