"""Distributed training: starts the scheduler, the servers and the workers of a job, watches them, and ends them as one.

MXNet's dist_sync waits for ever for a worker, server or scheduler that has died, heartbeats or not; so each process has
a keeper (`gan_kd.distributed.keeper`), here or behind ssh, and the first that ends in another way than well ends the
whole job.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from gan_kd.distributed.keeper import ALIVE, STOP
from gan_kd.errors import INTERRUPTED, RunError, UsageError
from gan_kd.system.console import tell
from gan_kd.system.stop import SIGNALS, leave_terminal

#: Seconds between two looks at the processes, and two signs of life to their keepers.
_LOOK, _SIGN = 0.2, 5.0
#: Seconds that the others have to end after the first that has ended well: they leave together.
_FAREWELL = 20.0
#: Whose settings go over ssh too.
_PASSED = ("MXNET_", "OMP_", "PS_", "DMLC_", "PYTHONPATH", "LD_LIBRARY_PATH")
_SERVE = "from gan_kd import compat; import mxnet"  # MXNet's import runs a server or scheduler to its end
_SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"]


class Host(NamedTuple):
    """A machine: how ssh reaches it, None for this one, and the address at which the others do."""

    name: str | None
    address: str

    def __str__(self) -> str:
        return self.name or "this machine"


class Member:
    """A process of the job, behind its keeper."""

    def __init__(self, role: str, number: int, host: Host) -> None:
        self.role, self.number, self.host = role, number, host
        self.last_line = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def __str__(self) -> str:
        return self.role if self.role == "scheduler" else f"{self.role} {self.number}"

    def start(self, settings: dict[str, str], command: Sequence[str]) -> None:
        """Start it. The first worker has this terminal; what the others print goes to stderr, line by line."""
        own = {"DMLC_ROLE": self.role, "DMLC_TASK_ID": str(self.number), "DMLC_NODE_HOST": self.host.address}
        pairs = [f"{key}={value}" for key, value in {**settings, **own}.items()]
        keeper = [sys.executable, "-m", "gan_kd.distributed.keeper", *pairs, "--", *command]
        if self.host.name is not None:
            keeper = [*_SSH, self.host.name, f"cd {shlex.quote(os.getcwd())} && exec {_in_environment(keeper)}"]
        shown = (self.role, self.number) == ("worker", 0)
        self._process = subprocess.Popen(
            keeper,
            stdin=subprocess.PIPE,
            stdout=None if shown else subprocess.PIPE,
            stderr=None if shown else subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the launcher alone, which passes it on
        )
        if not shown:
            self._reader = threading.Thread(target=self._forward, daemon=True)
            self._reader.start()

    def _forward(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for raw in self._process.stdout:
            self.last_line = raw.decode("utf-8", "replace").rstrip() or self.last_line
            tell(f"[{self}] {self.last_line}")

    @property
    def code(self) -> int | None:
        """Exit code, 128 + n where signal n ended it; None as long as it runs."""
        assert self._process is not None
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def tell(self, word: bytes) -> None:
        """Send the keeper a word; one that has ended hears nothing."""
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(word)
            self._process.stdin.flush()

    def end(self) -> None:
        """End it at once, with all that it has started, and wait until that is done."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:  # ssh without an answer; the keeper behind it ends the process by itself
            self._process.kill()
            self._process.wait()
        if self._reader is not None:
            self._reader.join(1)


class Job:
    """All processes of a training: one scheduler, servers, workers, in turn on the hosts."""

    def __init__(self, hosts: Sequence[Host], workers: int, servers: int, command: Sequence[str], resume: str) -> None:
        """command: what a worker runs. resume: what a user types to go on after the job has ended."""
        self.command, self.resume = command, resume
        self.workers = [Member("worker", k, hosts[k % len(hosts)]) for k in range(workers)]
        self.others = [Member("scheduler", 0, hosts[0])]
        self.others += [Member("server", k, hosts[k % len(hosts)]) for k in range(servers)]
        self.settings = {
            "DMLC_PS_ROOT_URI": hosts[0].address,
            "DMLC_PS_ROOT_PORT": str(_port(hosts[0])),
            "DMLC_NUM_WORKER": str(workers),
            "DMLC_NUM_SERVER": str(servers),
        }
        if hosts[0].name is None and "OMP_NUM_THREADS" not in os.environ:
            self.settings["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // workers))
        self._asked = 0

    def run(self) -> int:
        """Run to the end; the workers' exit code. RunError where one of the processes dies.

        A signal of `SIGNALS` asks the workers to save and end; a second one ends all at once.
        """
        asking = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._ask) for number in asking}
        try:
            for member in (*self.others, *self.workers):
                serves = [sys.executable, "-c", _SERVE]
                member.start(self.settings, self.command if member in self.workers else serves)
            self._watch()
        finally:
            for member in (*self.workers, *self.others):
                member.end()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._asked:
            tell(f"stopped; go on with: {self.resume}")
        return max(worker.code or 0 for worker in self.workers)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1
        if number == signal.SIGHUP:  # a shell sends it twice
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            leave_terminal()

    def _watch(self) -> None:
        """Until all have ended well, or one has and the others do not follow. RunError, KeyboardInterrupt."""
        passed, signed, left = False, 0.0, 0.0
        while True:
            if self._asked > 1:
                raise KeyboardInterrupt
            if self._asked and not passed:
                passed = True
                for worker in self.workers:
                    worker.tell(STOP)
            now = time.monotonic()
            if now - signed > _SIGN:
                signed = now
                for member in (*self.workers, *self.others):
                    member.tell(ALIVE)
            well = (None, 0, INTERRUPTED) if passed else (None, 0)
            for member in (*self.workers, *self.others):
                if member.code not in well:
                    raise RunError(self._obituary(member))
            running = [member for member in (*self.workers, *self.others) if member.code is None]
            if len(running) < len(self.workers) + len(self.others):  # they leave together
                left = left or now
                if not running:
                    return
                if now - left > _FAREWELL:
                    raise RunError(f"{running[0]} on {running[0].host} did not end with the others; {self._way_on()}")
            time.sleep(_LOOK)

    def _obituary(self, member: Member) -> str:
        code = member.code or 0
        signals = {128 + number: number.name for number in signal.Signals}
        how = f"was ended by {signals[code]}" if code in signals else f"ended with exit code {code}"
        if member.host.name is not None and code == 255:
            how += " (ssh's own, where it cannot reach the machine)"
        return f"{member} on {member.host} {how}; {self._way_on()}"

    def _way_on(self) -> str:
        return f"the job was ended. Go on from the last checkpoint with: {self.resume}"


def main(argv: list[str], train_parser: argparse.ArgumentParser) -> int:
    """Train a recipe on several machines or processes; arguments as `scripts/train_dist.sh` documents them."""
    parser = argparse.ArgumentParser(
        prog="train_dist.sh",
        usage="%(prog)s -n WORKERS [-s SERVERS] [-H HOSTFILE] RECIPE [OPTION...]",
        description="Train one recipe on several machines by MXNet's dist_sync.",
        epilog="Options after RECIPE are those of `python -m gan_kd train`.",
    )
    parser.add_argument("-n", dest="workers", type=int, required=True, help="workers; they share each batch")
    parser.add_argument("-s", dest="servers", type=int, help="servers, which add up gradients (as many as workers)")
    parser.add_argument("-H", dest="hostfile", type=Path, help="one host a line, which ssh reaches without a password")
    parser.add_argument("recipe", metavar="RECIPE", help="shipped, or a .yaml file")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    workers, servers = arguments.workers, arguments.workers if arguments.servers is None else arguments.servers
    if workers < 1 or servers < 1:
        raise UsageError(f"-n {workers} -s {servers}: there has to be one worker and one server at least")
    options = ["--recipe", arguments.recipe, *arguments.options]
    _check_batch(train_parser.parse_args(options), workers)
    resume = argv if "--resume" in argv else [*argv, "--resume"]
    command = [sys.executable, "-m", "gan_kd", "train", *options]
    hosts = _hosts(arguments.hostfile)
    return Job(hosts, workers, servers, command, f"bash scripts/train_dist.sh {shlex.join(resume)}").run()


def _check_batch(train: argparse.Namespace, workers: int) -> None:
    """UsageError for a wrong recipe, and for one whose batches leave a device without an image."""
    from gan_kd.recipe import recipe_from

    settings = recipe_from(train).train
    devices = workers * len(settings.contexts)
    if settings.batch_size < devices:
        raise UsageError(
            f"train.batch_size {settings.batch_size} is the whole batch, and {workers} workers have {devices} devices "
            "in all: raise it with --batch-size"
        )


def _hosts(hostfile: Path | None) -> list[Host]:
    """The hosts of a file, # beginning a comment; this machine alone without one. UsageError."""
    if hostfile is None:
        return [Host(None, "127.0.0.1")]
    try:
        text = hostfile.read_text(encoding="utf-8", errors="replace")
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"-H {hostfile} cannot be read: {error}") from error
    names = [line for line in lines if line]
    for name in names:
        if name.startswith("-") or len(name.split()) > 1:
            raise UsageError(f"-H {hostfile}: {name!r} is no host; write one name a line, as ssh takes it")
    if not names:
        raise UsageError(f"-H {hostfile} names no host; write one a line")
    hosts = [Host(name, _address(name)) for name in names]
    loop = [host for host in hosts if host.address.startswith("127.")]
    if 0 < len(loop) < len(hosts):
        raise UsageError(
            f"-H {hostfile}: {loop[0].name} is {loop[0].address}, which other machines cannot reach; write its address "
            "in the network"
        )
    return hosts


def _address(name: str) -> str:
    """The numeric address of a host, `user@` being ssh's: ps-lite binds to no name."""
    host = name.rpartition("@")[2]
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise UsageError(f"host {host} has no address: {error}; write its number or mend /etc/hosts") from error


def _port(host: Host) -> int:
    """A port of this machine that is free; on another one a guess below those that systems give out by themselves."""
    if host.name is not None:
        return random.randrange(20000, 32000)
    with socket.socket() as probe:
        probe.bind((host.address, 0))
        return int(probe.getsockname()[1])


def _in_environment(command: Sequence[str]) -> str:
    """A command for a remote shell, with what of this environment matters there."""
    passed = [f"{key}={value}" for key, value in os.environ.items() if key.startswith(_PASSED)]
    return shlex.join(["env", *passed, *command])
