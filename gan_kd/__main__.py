"""`python -m gan_kd COMMAND`: one thin function a command; MXNet is imported only by those that need it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from gan_kd.errors import INTERRUPTED, UserError, printable
from gan_kd.system.console import RESULT, end_output, prepare_streams, screen, show, tell
from gan_kd.system.paths import lend_matplotlib_a_folder


def train(argv: list[str]) -> int:
    """train the networks of a recipe, evaluate them, write the report"""
    from gan_kd.recipe import recipe_from

    arguments = _train_parser().parse_args(argv)
    recipe = recipe_from(arguments)

    from gan_kd import compat

    compat.set_default_threads(recipe.train.num_workers)
    from gan_kd.system.stop import Stopped, StopSignal

    try:
        with StopSignal() as stop:
            from gan_kd.training.run import train as run

            run(recipe, arguments.save_prefix, arguments.resume, stop)
    except Stopped:
        from gan_kd.system.shell import command_line

        # What was stopped before its recipe was written has nothing to resume.
        begun = (arguments.save_prefix / recipe.name / str(recipe.train.seed) / "recipe.yaml").is_file()
        resume = ["--resume"] if begun and not arguments.resume else []
        if "DMLC_ROLE" not in os.environ:  # else it is the launcher who says how to go on
            show(f"stopped and saved; go on with: {command_line('train', *argv, *resume)}")
    return 0


def _train_parser() -> argparse.ArgumentParser:
    from gan_kd.recipe import add_arguments

    parser = _parser("train", train)
    add_arguments(parser)
    group = parser.add_argument_group("run")
    group.add_argument(
        "--save-prefix", type=Path, default=Path("runs"), metavar="FOLDER", help="of all runs (%(default)s)"
    )
    group.add_argument("--resume", action="store_true", help="resume the run of this recipe and seed")
    return parser


def dist(argv: list[str]) -> int:
    """train on several machines or processes, as bash scripts/train_dist.sh does"""
    from gan_kd.distributed.launch import main

    return main(argv, _train_parser())


def evaluate(argv: list[str]) -> int:
    """measure a trained network: mAP and the AP of each class"""
    from gan_kd.commands.evaluate import main

    return main(argv)


def detect(argv: list[str]) -> int:
    """find objects in images or a video: pictures with boxes, and COCO results"""
    from gan_kd.commands.detect import main

    return main(argv)


def export(argv: list[str]) -> int:
    """write a trained network as MXNet's symbol, ONNX or int8, and what each costs"""
    from gan_kd.commands.export import main

    return main(argv)


def check(argv: list[str]) -> int:
    """read every annotation and image of your data, and list what is wrong"""
    from gan_kd.data.check import check as check_data
    from gan_kd.evaluation.counting import check_truth
    from gan_kd.recipe import add_arguments, recipe_from

    parser = _parser("check", check)
    add_arguments(parser)
    recipe = recipe_from(parser.parse_args(argv))
    report = check_data(recipe.data)
    check_truth(report.scans[1].dataset, recipe.eval)
    print(report)
    return 1 if report.problems else 0


def download(argv: list[str]) -> int:
    """fetch VOC or COCO and unpack it"""
    from gan_kd.data.download import download as fetch
    from gan_kd.system.paths import expanded

    parser = _parser("download", download)
    parser.add_argument("dataset", choices=("voc", "coco"), help="VOC07+12 or COCO 2017")
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="where to (~/.mxnet/datasets/DATASET)")
    arguments = parser.parse_args(argv)
    fetch(arguments.dataset, arguments.root or expanded(Path("~/.mxnet/datasets", arguments.dataset)))
    return 0


def report(argv: list[str]) -> int:
    """write the report of runs, of the seeds of each recipe, and the published tables"""
    from gan_kd.report.report import main, summarise

    parser = _parser("report", report)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, or folders of them")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="copy the reports there, too")
    parser.add_argument("--no-photos", action="store_true", help="leave out the page of the data set's images")
    parser.add_argument("--not-run", metavar="TEXT", help="why cells of the published tables were not run here")
    parser.add_argument("--summary", action="store_true", help="only the page over the seeds of each recipe")
    arguments = parser.parse_args(argv)
    if arguments.summary:
        summarise(arguments.runs, arguments.out)
    else:
        main(arguments.runs, arguments.out, not arguments.no_photos, arguments.not_run)
    return 0


def study(argv: list[str]) -> int:
    """train several recipes with several seeds and compare them; the same command resumes it"""
    from gan_kd.commands.study import main

    return main(argv)


def status(argv: list[str]) -> int:
    """list runs: state, stage, epoch, best mAP, time left"""
    from gan_kd.commands.status import main

    return main(argv)


def recipes(argv: list[str]) -> int:
    """list the recipes, or explain every key of one (--show NAME)"""
    from gan_kd.recipe import show as text_of

    parser = _parser("recipes", recipes)
    parser.add_argument("--show", metavar="NAME", help="the recipe to explain: a shipped name or a .yaml file")
    print(text_of(parser.parse_args(argv).show))
    return 0


def doctor(argv: list[str]) -> int:
    """print what this machine has, and what is missing"""
    from gan_kd.commands.doctor import main

    _parser("doctor", doctor).parse_args(argv)
    return main()


COMMANDS = {  # in the order in which a newcomer needs them
    "doctor": doctor,
    "recipes": recipes,
    "download": download,
    "check": check,
    "train": train,
    "status": status,
    "report": report,
    "eval": evaluate,
    "detect": detect,
    "export": export,
    "study": study,
    "dist": dist,
}


def _parser(name: str, command: object) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"python -m gan_kd {name}", description=command.__doc__)


# How much a command shows, by the options that say so, wherever they stand; the last one counts.
_LEVELS = {"-q": RESULT, "--quiet": RESULT, "-v": logging.DEBUG, "--verbose": logging.DEBUG}
_ABOUT = """\
commands:
{commands}

Begin with `train --recipe demo`, which needs no data. COMMAND --help lists the options of a command; -q and -v may
stand behind COMMAND, too.

exit codes:
  0    done; a training that a signal stopped: saved
  1    what was asked for failed: a run, a download, a check that found something
  2    wrong use: arguments, a recipe, input files
  3    a training diverged: losses, weights or detections are nan or infinite
  130  another command stopped by Ctrl-C"""


class _Version(argparse.Action):
    """Asks Git for the commit only where it is to be printed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from gan_kd.system.version import version

        print(version())
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, that of the process by default; a user's mistake is one line on stderr and its exit code."""
    prepare_streams()
    lend_matplotlib_a_folder()
    listing = "\n".join(f"  {name:<10}{command.__doc__}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m gan_kd",
        description="GAN-Knowledge Distillation for one-stage object detection (arXiv 1906.08467).",
        epilog=_ABOUT.format(commands=listing),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version, in a checkout the commit, too")
    for names, help_ in (
        (("-q", "--quiet"), "show warnings and the last lines alone"),
        (("-v", "--verbose"), "show details; errors with tracebacks"),
    ):
        parser.add_argument(
            *names, dest="level", action="store_const", const=_LEVELS[names[0]], default=logging.INFO, help=help_
        )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    words = [word for word in arguments.arguments if word not in _LEVELS]
    shown = [arguments.level, *(_LEVELS[word] for word in arguments.arguments if word in _LEVELS)][-1]
    try:
        with screen(shown):
            code = COMMANDS[arguments.command](words)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the output goes to `head` or a pager that was left
        return 0
    except (UserError, ModuleNotFoundError, OSError, UnicodeEncodeError, MemoryError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != "mxnet":
            raise
        if shown == logging.DEBUG:
            traceback.print_exc()
        tell(f"error: {_sentence(error)}")
        return error.exit_code if isinstance(error, UserError) else 1
    finally:
        end_output()


def _sentence(error: Exception) -> str:
    """What a command that failed says: of the project's own errors their text, of the system's which file and why."""
    if isinstance(error, ModuleNotFoundError):
        return "MXNet is not installed: take one build, pip install 'gan-kd[cpu]' or [gpu]"
    if isinstance(error, UnicodeEncodeError):
        return printable(f"{error.object!r} cannot be written as {error.encoding}: give files and folders other names")
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; lower the batch or input size, or end other programs"
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename} cannot be used" if error.filename else "something cannot be read or written"
        return printable(f"{what}: {error.strerror}")
    return printable(str(error))


if __name__ == "__main__":
    sys.exit(main())
