"""The command line itself: how much it shows, where its options stand, exit codes, version; in a terminal, too."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from gan_kd import __version__
from gan_kd.__main__ import COMMANDS, main
from gan_kd.system.console import RESULT, no_bar, screen

ROOT = Path(__file__).resolve().parents[1]


def start(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gan_kd", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def in_terminal(*words: str, **environment: str) -> str:
    """What a command writes to a terminal, stdout and stderr together."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.Popen(
        [sys.executable, "-m", "gan_kd", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 4096):
            written += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    done.wait(timeout=120)
    return written.decode()


def drawn(folder: Path, *words: str) -> list[str]:
    """A check of some drawn images."""
    keys = ["data.demo.train=6", "data.demo.test=4", f"data.root={folder}"]
    return ["check", "--recipe", "demo", *(part for key in keys for part in ("--set", key)), *words]


def test_help_names_commands_and_exit_codes():
    text = start("--help").stdout
    listed, codes = text.split("exit codes:")
    assert all(f"\n  {name} " in listed for name in COMMANDS)
    assert [line.split()[0] for line in codes.strip().splitlines()] == ["0", "1", "2", "3", "130"]


def test_help_of_a_training_groups_options_and_shows_the_recipes_values(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    titles = [text.index(f" {title}: ") for title in ("recipe", "data", "training", "devices", "run")]
    assert titles == sorted(titles)
    for shown in ("px (512)", "contexts (64)", "(~/.mxnet/datasets/voc)", "(gpu:0,gpu:1)", "of all runs (runs)"):
        assert shown in text


def test_help_imports_neither_mxnet_nor_numpy():
    code = "import sys; from gan_kd.__main__ import main\ntry: main(['--help'])\nfinally: print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    modules = done.stdout.splitlines()[-1]
    assert "'gan_kd.system.console'" in modules
    assert not any(f"'{name}'" in modules for name in ("mxnet", "numpy", "yaml", "tqdm"))


def test_version_and_commit(tmp_path):
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("not a git checkout")
    version, word, commit = start("--version").stdout.split()
    assert (version, word) == (__version__, "(commit")
    assert git.stdout.startswith(commit.rstrip("+)"))


def test_a_copy_inside_of_another_repository_knows_no_commit(tmp_path):
    """As an environment that lies in some project's folder."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    package = tmp_path / "lib" / "gan_kd"
    (package / "system").mkdir(parents=True)
    for name in ("__init__.py", "system/__init__.py", "system/version.py"):
        (package / name).write_text((ROOT / "gan_kd" / name).read_text())
    (tmp_path / "other").touch()
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", tmp_path, "add", "other"], check=True)
    subprocess.run(["git", "-C", tmp_path, *author, "commit", "-qm", "other"], check=True)
    code = "from gan_kd.system.version import version; print(version())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "lib", env={"PATH": os.environ["PATH"]},
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.strip() == __version__


@pytest.mark.parametrize(
    ("words", "code"),
    [(["doctor", "--help"], 0), ([], 2), (["trian"], 2), (["check", "--nothing"], 2), (["recipes", "--show", "no"], 2)],
)
def test_exit_codes(words, code):
    assert start(*words).returncode == code


def test_a_missing_mxnet_is_one_sentence(tmp_path):
    """As after `pip install .` without an extra."""
    code = (
        f"import sys; sys.modules['mxnet'] = None; from gan_kd.__main__ import main; sys.exit(main({drawn(tmp_path)}))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
    done = subprocess.run(
        [sys.executable, "-c", code.replace("'check'", "'train'")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "error: MXNet is not installed: take one build, pip install 'gan-kd[cpu]' or [gpu]\n"


def test_tracebacks_of_errors_are_for_verbose_alone():
    wrong = ["recipes", "--show", "no"]
    usual, verbose = start(*wrong), start(*wrong, "-v")
    assert "Traceback" not in usual.stderr and "Traceback" in verbose.stderr
    assert verbose.stderr.splitlines()[-1:] == usual.stderr.splitlines()


@pytest.mark.parametrize(
    ("words", "level"),
    [
        ([], logging.INFO),
        (["-q"], RESULT),
        (["--verbose"], logging.DEBUG),
        (["-v", "-q"], RESULT),
    ],
)
@pytest.mark.parametrize("behind", [False, True])
def test_levels_before_and_behind_the_command(monkeypatch, capsys, words, level, behind):
    seen = []

    def listen(argv):
        log = logging.getLogger("gan_kd")
        for number in (logging.DEBUG, logging.INFO, RESULT, logging.WARNING):
            log.log(number, "%d", number)
        seen.append((argv, no_bar()))
        return 0

    monkeypatch.setitem(COMMANDS, "doctor", listen)
    command = ["doctor", "-j", *words, "2"] if behind else [*words, "doctor", "-j", "2"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert seen == [(["-j", "2"], True if level == RESULT else None)]
    assert [int(line) for line in shown.out.split()] == [n for n in (logging.DEBUG, logging.INFO, RESULT) if n >= level]
    assert shown.err.split() == [str(logging.WARNING)]


def test_the_screen_leaves_logging_as_it_was():
    log = logging.getLogger("gan_kd")
    before = (log.level, log.propagate, log.handlers[:])
    with screen(logging.DEBUG):
        assert log.level == logging.DEBUG and len(log.handlers) == len(before[2]) + 1
    assert (log.level, log.propagate, log.handlers) == before
    assert no_bar() is None


def test_a_terminal_sees_bars_but_no_colours_and_quiet_neither(tmp_path):
    usual = in_terminal(*drawn(tmp_path / "data"), NO_COLOR="")
    assert "checking train" in usual and "no problems in 10 images" in usual
    quiet = in_terminal(*drawn(tmp_path / "data", "-q"), NO_COLOR="1")
    assert "checking" not in quiet and "no problems in 10 images" in quiet
    wrong = in_terminal("recipes", "--show", "no", FORCE_COLOR="1")
    assert wrong.startswith("error: ")
    assert not any("\x1b[" in text for text in (quiet, wrong))
    assert all(part.startswith("A") for part in usual.split("\x1b[")[1:])  # up a line: nothing else
