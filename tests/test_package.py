"""The package as pip builds and installs it: a wheel in a new environment, used outside of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gan_kd import __version__
from gan_kd.recipe import names

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**clean, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for setuptools leaves files beside what it builds."""
    version = metadata.version("setuptools")
    if int(version.split(".")[0]) < 77:
        pytest.skip(f"building needs setuptools 77, not {version} (scripts/setup.sh --dev brings it)")
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    shutil.copytree(ROOT / "gan_kd", copy / "gan_kd", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "scripts").mkdir()
    for file in (
        *ROOT.glob("scripts/requirements*"),
        *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")),
    ):
        shutil.copy(file, copy / file.relative_to(ROOT))
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, copy, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def commands(wheel: Path) -> Path:
    """The folder of commands of an environment with the wheel, in which this environment's libraries are found, too."""
    folder = wheel.parent / "environment"
    run(sys.executable, "-m", "venv", folder, cwd=wheel.parent)
    python = folder / "bin" / "python"
    libraries = next((folder / "lib").glob("python*/site-packages")) / "libraries.pth"
    run(python, "-m", "pip", "install", "--no-deps", wheel, cwd=folder)
    libraries.write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python.parent


def requirements(name: str) -> set[Requirement]:
    lines = (ROOT / "scripts" / name).read_text().splitlines()
    return {Requirement(line) for line in lines if line and not line.startswith("#")}


def test_the_wheel_asks_for_the_pins_and_for_one_build_of_mxnet_by_extra(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        asked = list(map(Requirement, message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])))
    for extra, files in {
        "": ["common"],
        "cpu": ["common", "mxnet-cpu"],
        "gpu": ["common", "mxnet-gpu"],
    }.items():
        environment = {"extra": extra}
        held = {str(pin.name) for pin in asked if pin.marker is None or pin.marker.evaluate(environment)}
        pins = set.union(*(requirements(f"requirements-{file}.txt") for file in files))
        assert held == {pin.name for pin in pins if pin.marker is None or pin.marker.evaluate()}
        assert len({"mxnet", "mxnet-cu112"} & set(map(canonicalize_name, held))) == (1 if extra else 0)
    exact = {(pin.name, str(pin.specifier)) for pin in requirements("requirements-common.txt")}
    assert exact <= {(pin.name, str(pin.specifier)) for pin in asked}


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("gan_kd/")}
    files = (path for path in (ROOT / "gan_kd").rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}


def test_the_command_works_outside_of_the_checkout(commands: Path, tmp_path: Path) -> None:
    command = commands / "gan-kd"
    assert run(command, "--version", cwd=tmp_path).strip() == __version__
    listed = run(command, "recipes", cwd=tmp_path).strip().splitlines()
    assert [line.split()[0] for line in listed] == list(names())
    place = run(commands / "python", "-c", "import gan_kd; print(gan_kd.__file__)", cwd=tmp_path)
    assert Path(place).is_relative_to(commands.parent)


def test_a_training_outside_of_the_checkout(commands: Path, tmp_path: Path) -> None:
    keys = ["data.demo.train=8", "data.demo.test=4", "train.batch_size=4", "stages.baseline.epochs=1"]
    keys += [f"stages.{name}=null" for name in ("teacher", "baseline_finetune", "adversarial", "finetune")]
    settings = [part for key in keys for part in ("--set", key)]
    shown = run(commands / "gan-kd", "train", "-q", "--recipe", "demo", *settings, cwd=tmp_path)
    result, report = shown.splitlines()
    assert result.startswith("baseline mAP=") and report == "report: runs/demo/233/report/report.html"
    assert (tmp_path / report.removeprefix("report: ")).is_file()
    assert "Training cost" in (tmp_path / "runs/demo/233/train.log").read_text()
