"""scripts/train_dist.sh: what it passes on and refuses, and whole jobs of which every kind of process is killed."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scripts.test_train_rows import copy, start
from tests.training.test_run import SMALL, assert_same, in_the_middle_of, records, results, run_folder

__all__ = ["copy"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]
#: As one process trains it, with two images a worker at least, and without the baseline.
RECIPE = {**SMALL, "data.size": 128, "data.demo.train": 48, "train.batch_size": 8, "stages.baseline": "null"}
#: Seconds in which a job has to end after the first of its processes.
AT_ONCE = 60


def test_arguments_pass_through(copy):
    done = start(copy, "train_dist.sh", "-n", "2", "demo", "--set", "data.root=a b")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["-m", "gan_kd", "dist", "-n", "2", "demo", "--set", "data.root=a b"]


def command(*arguments):
    return [sys.executable, "-m", "gan_kd", "dist", *map(str, arguments)]


@pytest.mark.parametrize(
    "arguments, hosts, message",
    [
        (["-n", "0", "demo"], None, "-n 0 -s 0: there has to be one worker and one server at least"),
        (["-n", "2", "-s", "0", "demo"], None, "-n 2 -s 0: there has to be one worker"),
        (["-n", "2", "demoo"], None, "demoo"),
        (
            ["-n", "9", "demo", "--contexts", "cpu:0,cpu:1"],
            None,
            "train.batch_size 8 is the whole batch, and 9",
        ),
        (["-n", "2", "-H", "hosts", "demo"], None, "-H hosts cannot be read"),
        (["-n", "2", "-H", "hosts", "demo"], "# none\n", "-H hosts names no host"),
        (["-n", "2", "-H", "hosts", "demo"], "one two\n", "'one two' is no host"),
        (["-n", "2", "-H", "hosts", "demo"], "-oProxyCommand=x\n", "'-oProxyCommand=x' is no host"),
        (["-n", "2", "-H", "hosts", "demo"], "nowhere.invalid\n", "host nowhere.invalid has no address"),
        (["-n", "2", "-H", "hosts", "demo"], "127.0.0.1\n192.0.2.1\n", "127.0.0.1 is 127.0.0.1, which other machines"),
    ],
)
def test_wrong_use_is_one_sentence_before_anything_starts(tmp_path, arguments, hosts, message):
    if hosts is not None:
        (tmp_path / "hosts").write_text(hosts)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command(*arguments), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and message in done.stderr and done.stderr.count("\n") == 1


def job(folder, *options):
    """A job of two workers, started and ready to be watched; it runs in `folder` with a stand-in for ssh on PATH."""
    settings = [part for key, value in RECIPE.items() for part in ("--set", f"{key}={value}")]
    settings += ["--set", f"data.root={folder / 'data'}", "--save-prefix", str(folder / "runs")]
    return begin(folder, *options, "demo", *settings)


def begin(folder, *arguments, ssh='while [ "$1" = -o ]; do shift 2; done\nshift\nexec sh -c "$*"'):
    """Start a job whose processes all have its folder in the environment, to be found by.

    ssh: a stand-in, which needs no other machine: it runs the command that it is given here.
    """
    folder.mkdir(exist_ok=True)
    (folder / "ssh").write_text(f"#!/bin/sh\n{ssh}\n")
    (folder / "ssh").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "JOB_FOLDER": str(folder)}
    return subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes(folder):
    """(process id, command line, environment) of all that a job in this folder has started and that runs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_text().split("\0")
                environment = (entry / "environ").read_text().split("\0")
            except OSError:
                continue
            if f"JOB_FOLDER={folder}" in environment and words[0]:
                found.append((int(entry.name), words, environment))
    return found


def process(folder, role, number):
    """The id of one of the job's processes: no keeper, which gets the role as an argument, and no loader worker."""
    wanted = {f"DMLC_ROLE={role}", f"DMLC_TASK_ID={number}"}
    main = {"worker": ["-m", "gan_kd", "train"]}.get(role, ["-c"])
    [pid] = [
        pid for pid, words, environment in processes(folder)
        if wanted <= set(environment) and words[1 : 1 + len(main)] == main
    ]  # fmt: skip
    return pid


def wait_until(folder, launcher, until):
    while not ((run_folder(folder) / "metrics.jsonl").exists() and until(records(folder))):
        if launcher.poll() is not None:
            pytest.fail(launcher.communicate()[0])
        time.sleep(0.01)


def wait_until_all_have_ended(folder):
    deadline = time.monotonic() + AT_ONCE
    while processes(folder):
        assert time.monotonic() < deadline, processes(folder)
        time.sleep(0.1)


def resumed(folder, output):
    """Go on with the command that the job's last words give."""
    words = shlex.split(output.strip().splitlines()[-1].partition(": bash scripts/train_dist.sh ")[2])
    assert words[-1] == "--resume", output
    return begin(folder, *words)


def test_a_machine_that_ssh_cannot_reach_is_named(tmp_path):
    (tmp_path / "hosts").write_text("127.0.0.1\n")
    launcher = begin(tmp_path, "-n", 1, "-H", tmp_path / "hosts", "demo", ssh="exit 255")
    output = launcher.communicate(timeout=AT_ONCE)[0]
    assert launcher.returncode == 1 and "Traceback" not in output
    assert " on 127.0.0.1 ended with exit code 255 (ssh's own, where it cannot reach the machine); " in output, output


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs") / "undisturbed"
    launcher = job(folder, "-n", 2, "-s", 1)
    output = launcher.communicate(timeout=600)[0]
    assert launcher.returncode == 0, output
    return folder, output


@pytest.mark.slow
def test_the_first_worker_speaks_and_writes(undisturbed):
    folder, output = undisturbed
    *maps, report = output.splitlines()[-3:]
    assert [line.partition(" mAP=")[0] for line in maps] == ["teacher", "distilled"], output
    assert Path(report.partition("report: ")[2]).is_file()
    assert output.count("stage adversarial trains") == 1 and "Traceback" not in output
    wait_until_all_have_ended(folder)


@pytest.mark.slow
def test_a_job_whose_processes_are_stopped_and_killed_equals_the_undisturbed_one(undisturbed, tmp_path):
    """On two machines by name, which a stand-in for ssh makes of this one; so the first job was another way, too."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1\nlocalhost  # the same\n")
    launcher = job(tmp_path, "-n", 2, "-s", 2, "-H", hosts)

    wait_until(tmp_path, launcher, in_the_middle_of("teacher", 1))
    launcher.send_signal(signal.SIGTERM)
    output = launcher.communicate(timeout=600)[0]
    assert launcher.returncode in (0, 130) and "stopped; go on with: " in output, output
    assert any((run_folder(tmp_path) / "checkpoints").iterdir())

    for (role, number, host), (stage, epoch) in (
        (("worker", 1, "localhost"), ("adversarial", 1)),
        (("scheduler", 0, "127.0.0.1"), ("finetune", 1)),
    ):
        launcher = resumed(tmp_path, output)
        wait_until(tmp_path, launcher, in_the_middle_of(stage, epoch))
        os.kill(process(tmp_path, role, number), signal.SIGKILL)
        output = launcher.communicate(timeout=AT_ONCE)[0]
        name = role if role == "scheduler" else f"{role} {number}"
        assert launcher.returncode == 1
        assert f"error: {name} on {host} was ended by SIGKILL; the job was ended." in output, output
        wait_until_all_have_ended(tmp_path)

    launcher = resumed(tmp_path, output)
    wait_until(tmp_path, launcher, in_the_middle_of("finetune", 1))
    launcher.kill()
    launcher.communicate()
    wait_until_all_have_ended(tmp_path)

    launcher = resumed(tmp_path, output)
    output = launcher.communicate(timeout=600)[0]
    assert launcher.returncode == 0, output
    assert_same(results(undisturbed[0]), results(tmp_path))
