#!/usr/bin/env python3
"""Torture: a small run of all stages is killed at random moments, resumed, and compared with the undisturbed one."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gan_kd import compat  # noqa: F401
from gan_kd.errors import INTERRUPTED
from gan_kd.system.stop import StopSignal

ABOUT = """Make a small undisturbed run of all stages, then make it again N times, each time ended by a signal at a
random moment and resumed, and compare metrics.jsonl byte by byte and every array of every params file. The last line
is "N of N equal"; exit code 1 otherwise."""

ROOT = Path(__file__).resolve().parents[1]
#: By family, small recipes with one epoch of every stage, 4 batches each.
RECIPES = {path.stem: path for path in sorted((ROOT / "scripts/torture_recipes").glob("*.yaml"))}
NAME = "torture"
SECONDS = 600  # that any one of the runs may take
KILL_RUN, STOP_RUN, KILL_WORKER = "SIGKILL to the run", "SIGTERM to the run", "SIGKILL to a loader worker"
WAYS = (KILL_RUN, STOP_RUN, KILL_WORKER)


class Difference(Exception):
    """What is not as in the undisturbed run."""


class Moment(NamedTuple):
    """When a run is struck: so many seconds after metrics.jsonl has so many lines."""

    records: int
    seconds: float

    @staticmethod
    def draw(rng: np.random.Generator, seconds: float, records: int) -> Moment:
        """One of a run that takes so long and writes so many: any instant of it, or any interval of its training."""
        if rng.random() < 0.5:
            return Moment(0, rng.uniform(0, seconds))
        return Moment(int(rng.integers(1, records + 1)), rng.uniform(0, seconds / records))


def main(argv: Sequence[str]) -> int:
    """Run as the arguments say; 0 where all runs are equal, 1 where not, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python scripts/torture.py", description=ABOUT)
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="runs to kill (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals (%(default)s)")
    parser.add_argument("--detector", choices=RECIPES, default="ssd", help="family of the run (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep all runs there (a temporary folder)")
    arguments = parser.parse_args(argv)
    if arguments.kills < 1 or arguments.seed < 0:
        parser.error("--kills has to be at least 1 and --seed at least 0")
    if arguments.out is not None and arguments.out.exists():
        parser.error(f"--out {arguments.out} is there already; name a new folder")
    folder = Path(tempfile.mkdtemp(prefix="torture-")) if arguments.out is None else arguments.out.resolve()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks are too small for more
    evidence = arguments.out is not None
    try:
        with StopSignal():
            equal = torture(folder, RECIPES[arguments.detector], arguments.kills, arguments.seed)
        evidence |= equal < arguments.kills
    except Difference as error:
        evidence = True
        print(f"error: the undisturbed run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    finally:
        if not evidence:
            shutil.rmtree(folder, ignore_errors=True)
    if evidence:
        print(f"the runs are in {folder}")
    print(f"{equal} of {arguments.kills} equal")
    return 0 if equal == arguments.kills else 1


def torture(folder: Path, recipe: Path, kills: int, seed: int) -> int:
    """Kill that many runs of a recipe, a line for each; how many of them came to the undisturbed one's results.

    Difference where the undisturbed run does not end well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(recipe, folder / f"{NAME}.yaml")
    calm = Trial(folder / "undisturbed")
    started = time.monotonic()
    try:
        calm.start()
        calm.finish()
    finally:
        calm.close()
    seconds = time.monotonic() - started
    records = calm.records()
    print(f"undisturbed: {seconds:.1f} s, {records} records", flush=True)
    equal = 0
    for number in range(1, kills + 1):
        trial = Trial(folder / f"{number:03d}")
        try:
            trial.suffer(np.random.default_rng([seed, number]), seconds, records)
            trial.finish()
            compare(calm.run, trial.run)
        except Difference as error:
            result = str(error)
        else:
            result = "equal"
            equal += 1
            shutil.rmtree(trial.folder)
        finally:
            trial.close()
        print(f"{number}/{kills} {trial.blow}: {result}", flush=True)
    return equal


class Trial:
    """One run in a folder of its own, with data of its own, so that its drawing is met too."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.run = folder, folder / "runs" / NAME / "233"
        self.output = folder / "output.txt"
        self.process: subprocess.Popen | None = None
        self.settings = [f"data.root={json.dumps(str(folder / 'data'))}"]
        self.blow = "not struck"

    def start(self) -> None:
        """Start the run, or go on with it where it has begun."""
        command = [sys.executable, "-m", "gan_kd", "train", "--recipe", str(self.folder.parent / f"{NAME}.yaml")]
        command += [part for setting in self.settings for part in ("--set", setting)]
        command += ["--save-prefix", str(self.folder / "runs")]
        self._launch([*command, *(["--resume"] if (self.run / "recipe.yaml").is_file() else [])])

    def _launch(self, command: list[str]) -> None:
        with open(self.output, "ab") as stream:
            self._printed_before = stream.tell()
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )

    def close(self) -> None:
        """End what is left of it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait(self) -> int:
        """The exit code of the process under way. Difference where it does not end, or ends with a traceback."""
        assert self.process is not None
        try:
            code = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise Difference(f"it does not end within {SECONDS} s (see {self.output})") from None
        if "Traceback" in self.printed():
            raise Difference(f"it ended with a traceback (see {self.output})")
        return code

    def printed(self) -> str:
        """What the process printed that was started last."""
        return self.output.read_bytes()[self._printed_before :].decode(errors="replace")

    def finish(self) -> None:
        """Wait for the end of the run under way. Difference where it is not a good one."""
        code = self.wait()
        if code != 0 or "report: " not in self.printed():
            raise Difference(f"it ended with exit code {code} and not with its report (see {self.output})")

    def suffer(self, rng: np.random.Generator, seconds: float, records: int) -> None:
        """Start the run, strike it at a random moment, and start it again where that ended it.

        A run that is over before it is struck begins anew, to be struck earlier.
        """
        way = str(rng.choice(WAYS))
        policy = str(rng.choice(["restart", "stop"]))
        self.settings.append(f"train.on_worker_failure={policy}")
        self.start()
        while not self._strike(way, Moment.draw(rng, seconds, records)):
            self.finish()
            shutil.rmtree(self.folder)
            self.folder.mkdir()
            seconds *= 0.9
            self.start()
        self._go_on(way, policy)

    def _strike(self, way: str, moment: Moment) -> bool:
        """Whether there was something to strike when the moment came."""
        assert self.process is not None
        while self.records() < moment.records:
            if self.process.poll() is not None:
                return False
            time.sleep(0.005)
        until = time.monotonic() + moment.seconds
        while time.monotonic() < until or (way == KILL_WORKER and not _workers(self.process.pid)):
            if self.process.poll() is not None:
                return False
            time.sleep(0.005)
        victims = _workers(self.process.pid) if way == KILL_WORKER else [self.process.pid]
        if not victims or self.process.poll() is not None:
            return False
        where = self._where()
        try:
            os.kill(victims[-1], signal.SIGTERM if way == STOP_RUN else signal.SIGKILL)
        except ProcessLookupError:  # a worker that ended meanwhile
            return False
        self.blow = f"{way}, {where}"
        return True

    def records(self) -> int:
        """Lines of metrics.jsonl."""
        try:
            return (self.run / "metrics.jsonl").read_bytes().count(b"\n")
        except OSError:
            return 0

    def _where(self) -> str:
        """The last thing that the run wrote."""
        evaluated = sorted(file.parent.name for file in self.run.glob("*/eval.json"))
        if evaluated:
            return f"in the final evaluation, after {len(evaluated)} networks"
        try:
            lines = (self.run / "metrics.jsonl").read_text().splitlines()
            last = json.loads(lines[-1])
        except (OSError, IndexError, ValueError):
            return "before the first record"
        return f"after the {last['kind']} record of stage {last['stage']}, epoch {last['epoch']}, batch {last['batch']}"

    def _go_on(self, way: str, policy: str) -> None:
        """See that the run took the blow as it should, and start it again where it ended by it."""
        code = self.wait() if way != KILL_WORKER or policy == "stop" else None
        printed = self.printed()
        if way == KILL_RUN:
            _require(code == -signal.SIGKILL, f"exit code {code}")
            self.start()
        elif way == STOP_RUN:
            begun = "go on with: " in printed
            # A process that Python is still starting has no handler yet; one that has its report has nothing to save.
            _require(code == 0 if begun or "report: " in printed else code == -signal.SIGTERM, f"exit code {code}")
            if begun:
                self._launch(shlex.split(printed.partition("go on with: ")[2].splitlines()[0]))
            elif code != 0:
                self.start()
        elif code:
            _require(code == 1 and "data loader worker" in printed, f"exit code {code}")
            self.start()


def compare(one: Path, other: Path) -> None:
    """Difference for the first of metrics, params files, measured AP and last checkpoint that two runs do not share."""
    first, second = ((run / "metrics.jsonl").read_text().splitlines(keepends=True) for run in (one, other))
    for number, (line, found) in enumerate(zip(first, second), 1):
        _require(line == found, f"metrics.jsonl, line {number}: {found.strip()} instead of {line.strip()}")
    _require(len(first) == len(second), f"metrics.jsonl has {len(second)} lines instead of {len(first)}")
    files = [{file.relative_to(run) for file in _results(run)} for run in (one, other)]
    odd = sorted(map(str, files[0] ^ files[1]))
    _require(not odd, f"only one of the runs has {', '.join(odd)}")
    for file in sorted(files[0]):
        if file.suffix == ".params":
            _compare_arrays(one / file, other / file)
        else:
            values = [json.loads((run / file).read_text()) for run in (one, other)]
            _require(_numbers(values[0]) == _numbers(values[1]), f"{file} differs")


def _results(run: Path) -> list[Path]:
    last = max((path for path in (run / "checkpoints").iterdir() if path.name[0].isdigit()), key=lambda p: p.name)
    return [*run.glob("*/best.params"), *run.glob("*/eval.json"), last / "arrays.params", last / "state.json"]


def _numbers(values: dict) -> dict:
    """Of eval.json and state.json what depends on the training alone."""
    return {key: values.get(key) for key in ("map", "ap", "summary", "progress", "metrics_bytes", "teacher_map")}


def _compare_arrays(one: Path, other: Path) -> None:
    import mxnet as mx

    first, second = mx.nd.load(str(one)), mx.nd.load(str(other))
    name = f"{one.parent.name}/{one.name}"
    _require(first.keys() == second.keys(), f"{name} holds other arrays")
    for key, array in first.items():
        same = np.array_equal(array.asnumpy(), second[key].asnumpy())
        _require(same and array.dtype == second[key].dtype, f"{name}: {key} differs")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Difference(otherwise)


def _workers(pid: int) -> list[int]:
    """Process ids of a run's loader workers."""
    found = []
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            if "workers.work(" in Path(f"/proc/{child}/cmdline").read_text():
                found.append(int(child))
    except OSError:  # one ended meanwhile
        pass
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
