"""scripts/benchmark.py as users start it, and what it says to wrong input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gan_kd.system.timing import Result
from scripts.timings import main as command

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/benchmark.py"


def start(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--only", "lodaer"], 2, "invalid choice: 'lodaer' (choose from"),
        (["--rounds", "0"], 2, "error: --rounds 0: nothing can be timed less than once"),
        (["--rounds", "many"], 2, "--rounds: invalid int value"),
        (["--json", "no/such/folder/out.json"], 2, "its folder is not there; make it first"),
        (["--only", "voc_ap", "--out", "file/out"], 1, "--out file/out cannot be used: Not a directory"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, arguments, code, message):
    (tmp_path / "file").touch()
    done = start(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_every_benchmark_has_a_name_in_the_help(tmp_path):
    done = start("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert all(name in done.stdout for name in (*command.BENCHMARKS, "growth"))


def test_figures_go_to_screen_file_and_page(tmp_path, monkeypatch, capsys):
    class Some:
        @staticmethod
        def run(rounds):
            yield Result("some_ratio", "one / other", [2.0] * rounds, 3, notes=["Why it falls short."])
            yield Result("no_ratio", "one / none", [], 1, notes=["Not installed."])

    monkeypatch.setitem(sys.modules, "scripts.timings.some", Some)
    monkeypatch.setitem(command.BENCHMARKS, "eval", "some")
    monkeypatch.chdir(tmp_path)
    assert command.main(["--only", "eval", "--rounds", "2", "--json", "out.json", "--out", "page"]) == 0
    shown = capsys.readouterr().out
    assert "some_ratio                 2.00  (2.00 to 2.00)  aim: at least 3, not reached" in shown
    assert "    Why it falls short." in shown and "no_ratio                not run here" in shown
    assert json.loads(Path("out.json").read_text()) == {"some_ratio": 2.0, "no_ratio": None}
    assert "python scripts/benchmark.py --only eval --rounds 2" in Path("page/benchmark.md").read_text()


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scripts.timings.empty", type("Empty", (), {"run": lambda rounds: []}))
    monkeypatch.setitem(command.BENCHMARKS, "eval", "empty")
    assert command.main(["--only", "eval", "--json", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: --json {tmp_path} cannot be written")
