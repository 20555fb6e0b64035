"""`python -m gan_kd COMMAND`: one thin function a command; MXNet is imported only by those that need it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gan_kd import __version__
from gan_kd.errors import INTERRUPTED, UserError


def train(argv: list[str]) -> int:
    """train the networks of a recipe, evaluate them, write the report"""
    from gan_kd.recipe import add_arguments, recipe_from

    parser = _parser("train", train)
    add_arguments(parser)
    parser.add_argument("--save-prefix", type=Path, default=Path("runs"), help="folder of all runs (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with the run that is there")
    arguments = parser.parse_args(argv)
    recipe = recipe_from(arguments)

    from gan_kd import compat

    compat.set_default_threads(recipe.train.num_workers)
    from gan_kd.engine.run import train as run

    return INTERRUPTED if run(recipe, arguments.save_prefix, arguments.resume) is None else 0


def evaluate(argv: list[str]) -> int:
    """measure a params file on the recipe's test split"""
    from gan_kd.evaluation import main

    return main(argv)


def detect(argv: list[str]) -> int:
    """find objects in images or a video with a params file: pictures and COCO results"""
    from gan_kd.detect import main

    return main(argv)


def export(argv: list[str]) -> int:
    """write a params file's network for products: MXNet's symbol, ONNX, int8, and what each costs"""
    from gan_kd.exporting import main

    return main(argv)


def check(argv: list[str]) -> int:
    """read every annotation and image of a recipe's data and list what is wrong"""
    from gan_kd.data.check import check as check_data
    from gan_kd.recipe import add_arguments, recipe_from

    parser = _parser("check", check)
    add_arguments(parser)
    report = check_data(recipe_from(parser.parse_args(argv)).data)
    print(report)
    return 1 if report.problems else 0


def download(argv: list[str]) -> int:
    """fetch VOC or COCO and unpack it"""
    from gan_kd.data.download import download as fetch

    parser = _parser("download", download)
    parser.add_argument("dataset", choices=("voc", "coco"))
    parser.add_argument("--root", type=Path, help="where to (default ~/.mxnet/datasets/DATASET)")
    arguments = parser.parse_args(argv)
    fetch(arguments.dataset, arguments.root or Path("~/.mxnet/datasets", arguments.dataset).expanduser())
    return 0


def report(argv: list[str]) -> int:
    """write the report of a run, or of several, their spread, and the published tables beside them"""
    from gan_kd.report.report import main

    parser = _parser("report", report)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, or folders of them")
    parser.add_argument("--out", type=Path, help="copy the reports there, one folder a recipe (e.g. results)")
    parser.add_argument("--no-photos", action="store_true", help="leave out the page of the data set's images")
    parser.add_argument("--not-run", metavar="TEXT", help="why cells of the published tables were not run here")
    arguments = parser.parse_args(argv)
    main(arguments.runs, arguments.out, not arguments.no_photos, arguments.not_run)
    return 0


def study(argv: list[str]) -> int:
    """train a matrix of recipes and seeds, resumable at any moment, and compare them"""
    from gan_kd.study.command import main

    return main(argv)


def recipes(argv: list[str]) -> int:
    """list the recipes, or print one with every knob explained"""
    from gan_kd.recipe import show

    parser = _parser("recipes", recipes)
    parser.add_argument("--show", metavar="NAME", help="a recipe or a .yaml file")
    print(show(parser.parse_args(argv).show))
    return 0


def doctor(argv: list[str]) -> int:
    """tell what this machine has, and what is wrong"""
    from gan_kd.doctor import main

    _parser("doctor", doctor).parse_args(argv)
    return main()


COMMANDS = {
    "train": train,
    "eval": evaluate,
    "detect": detect,
    "export": export,
    "check": check,
    "report": report,
    "study": study,
    "recipes": recipes,
    "download": download,
    "doctor": doctor,
}


def _parser(name: str, command: object) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"python -m gan_kd {name}", description=command.__doc__)


def main(argv: list[str]) -> int:
    """Run a command; a user's mistake is one line on stderr and its exit code."""
    listing = "\n".join(f"  {name:<10}{command.__doc__}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m gan_kd",
        description="GAN-Knowledge Distillation for one-stage object detection (arXiv 1906.08467).",
        epilog=f"commands:\n{listing}\n\nCOMMAND --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    try:
        return COMMANDS[arguments.command](arguments.arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the output goes to `head` or a pager that was left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
