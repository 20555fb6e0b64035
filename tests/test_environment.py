"""compat.py, the pins, and scripts/setup.sh (real venv and pip, on a project of one small package)."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gan_kd import compat

ROOT = Path(__file__).resolve().parents[1]
CC = shutil.which("cc") or shutil.which("gcc")


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def python(code: str, **environment: str) -> str:
    done = run(sys.executable, "-c", code, PYTHONPATH=environment.pop("PYTHONPATH", str(ROOT)), **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# compat


def test_importing_compat_does_not_import_mxnet():
    assert python("import sys, gan_kd.compat; print('mxnet' in sys.modules)") == "False"


def test_aliases_are_set_where_missing_and_only_there(monkeypatch):
    monkeypatch.delattr(np, "bool")
    monkeypatch.setattr(np, "int", np.int64)
    compat.restore_numpy_aliases()
    assert (np.bool, np.int) == (bool, np.int64)


def test_every_numpy_name_that_mxnet_and_gluoncv_use_is_there():
    removed = {"bool", "int", "float", "complex", "object", "str", "long", "unicode"}
    used = set()
    for package in ("mxnet", "gluoncv"):
        spec = importlib.util.find_spec(package)
        for file in Path(spec.origin).parent.rglob("*.py"):
            if "torch" not in file.parts:  # GluonCV's PyTorch half
                text = file.read_text(encoding="utf-8")
                used |= set(re.findall(r"\b(?:np|_np|onp|numpy)\.([a-z]+)\b(?!\()", text)) & removed
                used |= set(re.findall(r"\b(?:np|_np|onp|numpy)\.([a-z]+)\(", text)) & removed
    assert used and used <= set(vars(np))


@pytest.mark.skipif(not CC, reason="no C compiler")
def test_cuda_libraries_of_wheels_are_found_by_name_afterwards(tmp_path):
    """By the bare name, as libmxnet.so finds them, and as cuSOLVER finds cuBLAS."""
    (tmp_path / "mxnet").mkdir()
    (tmp_path / "mxnet" / "__init__.py").touch()
    for library in compat.CUDA_LIBRARIES:
        file = tmp_path / "nvidia" / library
        file.parent.mkdir(parents=True)
        options = ["-shared", "-fPIC", f"-Wl,-soname,{file.name}", "-x", "c", "/dev/null", "-x", "none"]
        if "cusolver" in library:
            options += ["-Wl,--no-as-needed", tmp_path / "nvidia/cublas/lib/libcublas.so.11"]
        made = run(CC, *options, "-o", file)
        assert made.returncode == 0, made.stderr
    load_all = "import ctypes; [ctypes.CDLL(name.split('/')[-1]) for name in compat.CUDA_LIBRARIES]"
    path = f"{tmp_path}:{ROOT}"
    assert python(f"from gan_kd import compat; {load_all}; print('mxnet')", PYTHONPATH=path) == "mxnet"
    undone = run(sys.executable, "-c", f"class compat: CUDA_LIBRARIES={compat.CUDA_LIBRARIES}\n{load_all}")
    assert "cannot open shared object file" in undone.stderr  # without compat they are out of reach


def threads_set(num_workers: int, cores: int, **environment: str) -> str:
    """OMP_NUM_THREADS that compat leaves in a process that may use so many cores."""
    code = (
        "import os; from gan_kd import compat; "
        f"os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}]); "
        f"compat.set_default_threads({num_workers}); print(os.environ['OMP_NUM_THREADS'])"
    )
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, "PYTHONPATH": str(ROOT), **environment}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def test_threads_follow_the_cores_of_the_process_and_leave_one_to_the_loader():
    assert threads_set(0, cores=1) == threads_set(4, cores=1) == "1"
    if len(os.sched_getaffinity(0)) > 1:
        assert (threads_set(0, cores=2), threads_set(4, cores=2)) == ("2", "1")


def test_the_users_number_of_threads_is_kept():
    assert threads_set(0, cores=1, OMP_NUM_THREADS="7") == "7"


@pytest.mark.parametrize("workers, least", [(0, 0), (2, 1)])
def test_training_sets_threads_before_mxnet_is_loaded(tmp_path, workers, least):
    (tmp_path / "mxnet.py").write_text("import os; raise SystemExit(os.environ['OMP_NUM_THREADS'])")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-m", "gan_kd", "train", "--recipe", "demo", "-j", str(workers)],
        env={**environment, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stderr.strip() == str(max(1, len(os.sched_getaffinity(0)) - least))


# Pins


def pins(name: str) -> dict[str, Requirement]:
    """Requirements of a file and of those it includes, by canonical name."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("-r "):
            found.update(pins(line[3:]))
        elif line and not line.startswith("#"):
            requirement = Requirement(line)
            found[canonicalize_name(requirement.name)] = requirement
    return found


FILES = ("requirements.txt", "requirements-cpu.txt", "scripts/requirements-dev.txt")


@pytest.mark.parametrize("name", FILES)
def test_pins_are_exact(name):
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins(name).values())


def test_builds_differ_in_mxnet_and_its_libraries_alone():
    gpu, cpu = pins("requirements.txt"), pins("requirements-cpu.txt")
    wheels = {f"nvidia-{name.split('/')[0].replace('_', '-')}-cu11" for name in compat.CUDA_LIBRARIES}
    assert set(gpu) - set(cpu) == {"mxnet-cu112", *wheels}
    assert set(cpu) - set(gpu) == {"mxnet"}


def required(pin: Requirement) -> Iterator[Requirement]:
    """What the pinned version asks for on this Python, where that version is installed."""
    for distribution in metadata.distributions(name=pin.name):
        if pin.specifier.contains(distribution.version):
            for requirement in map(Requirement, distribution.requires or ()):
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    yield requirement


def test_pins_hold_everything_that_the_pinned_packages_require():
    """They are installed with --no-deps, so a library that is not listed would be missing."""
    listed = {name: pin for file in FILES[1:] for name, pin in pins(file).items()}
    asked = {(name, requirement) for name, pin in listed.items() for requirement in required(pin)}
    assert len(asked) > 20
    for name, requirement in asked:
        needed = canonicalize_name(requirement.name)
        if (name, needed) == ("gluoncv", "opencv-python"):
            needed = canonicalize_name("opencv-python-headless")
        assert needed in listed, f"{name} requires {requirement}"
        version = str(listed[needed].specifier).lstrip("=")
        assert requirement.specifier.contains(version), f"{name} requires {requirement}, not {version}"


# scripts/setup.sh


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with the real setup.sh, whose one requirement is a wheel made here."""
    root = tmp_path_factory.mktemp("a project")  # a blank in the path
    (root / "scripts").mkdir()
    (root / "gan_kd" / "commands").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup.sh", root / "scripts")
    for folder in ("gan_kd", "gan_kd/commands"):
        (root / folder / "__init__.py").touch()
    (root / "gan_kd" / "commands" / "doctor.py").write_text(
        "from importlib.util import find_spec\n"
        "def import_problem():\n    return None if find_spec('tiny') else 'tiny is not installed'\n"
    )
    for version in ("1.0", "2.0"):
        info = f"tiny-{version}.dist-info"
        with zipfile.ZipFile(root / f"tiny-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tiny.py", f"version = {version!r}\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    pin(root, "tiny==1.0")
    return root


def pin(root: Path, line: str) -> None:
    for name, build in (("requirements.txt", "gpu"), ("requirements-cpu.txt", "cpu")):
        (root / name).write_text("-r scripts/requirements-common.txt\n")
        (root / "scripts" / f"requirements-mxnet-{build}.txt").touch()
    (root / "scripts" / "requirements-common.txt").write_text(f"{line}\n")
    (root / "scripts" / "requirements-dev.txt").write_text("tiny==2.0\n")


def setup(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": root.as_uri(), **environment}
    return run("bash", root / "scripts" / "setup.sh", *arguments, **settings)


def installed(root: Path) -> str:
    """Version of the package in the environment, in which `gan_kd` too is importable from any folder."""
    code = "import os; os.chdir('/'); import gan_kd, tiny; print(tiny.version, gan_kd.__file__)"
    done = run(root / ".venv/bin/python", "-c", code, PYTHONSAFEPATH="1", PYTHONPATH="")
    assert done.stdout.rstrip().endswith(str(root / "gan_kd" / "__init__.py")), done.stderr
    return done.stdout.split()[0]


@pytest.mark.slow
def test_setup_makes_the_environment_once(project):
    first = setup(project, "--cpu")
    assert first.returncode == 0, first.stderr
    assert installed(project) == "1.0"
    made = (project / ".venv" / "pyvenv.cfg").stat().st_mtime_ns
    again = setup(project)
    assert again.returncode == 0 and len(again.stdout.splitlines()) == 1
    assert (project / ".venv" / "pyvenv.cfg").stat().st_mtime_ns == made


@pytest.mark.slow
def test_setup_makes_it_anew_for_other_pins_and_after_an_interruption(project):
    pin(project, "tiny==1.0")
    assert setup(project, "--cpu").returncode == 0
    pin(project, "tiny==2.0")
    active = setup(project, PYTHON=str(project / ".venv" / "bin" / "python"))
    assert active.returncode == 0, active.stderr
    assert installed(project) == "2.0"
    shutil.rmtree(project / ".venv")
    installing = subprocess.Popen(
        ["bash", project / "scripts/setup.sh", "--cpu"],
        env={**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": project.as_uri()},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert installing.stdout is not None
    while "installing" not in installing.stdout.readline():
        assert installing.poll() is None
    os.killpg(installing.pid, 9)
    installing.communicate()
    assert setup(project).returncode == 0
    assert installed(project) == "2.0"


@pytest.mark.slow
def test_setup_adds_the_tools_to_the_environment(project):
    pin(project, "tiny==1.0")
    assert setup(project, "--cpu").returncode == 0
    assert setup(project, "--dev").returncode == 0
    assert installed(project) == "2.0"
    assert setup(project, "--dev").stdout.count("\n") == 1


@pytest.mark.slow
def test_setup_says_that_there_is_no_network(project):
    pin(project, "tiny==3.0")
    nowhere = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "1"}
    done = setup(project, "--cpu", PIP_CONFIG_FILE=os.devnull, **nowhere)
    assert done.returncode == 1 and "package index cannot be reached" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_setup_prints_what_pip_could_not_find(project):
    pin(project, "tiny==4.0")
    done = setup(project, "--cpu")
    assert done.returncode == 1 and "tiny==4.0" in done.stderr


def test_setup_refuses_a_python_that_does_not_fit(project, tmp_path):
    new = tmp_path / "python"
    new.write_text("#!/bin/sh\necho 3.14.0\n")
    new.chmod(0o755)
    done = setup(project, PYTHON=str(new))
    assert done.returncode == 1 and f"{new} is 3.14.0" in done.stderr and "apt-get" in done.stderr
    new.write_text("#!/bin/sh\nexit 127\n")  # a shim without a Python behind it
    assert f"{new} does not run" in setup(project, PYTHON=str(new)).stderr


@pytest.mark.slow
def test_setup_passes_over_a_python_that_does_not_run(project, tmp_path):
    """The newest name on PATH fails when it is run; the next one is taken."""
    shutil.copytree(project / "scripts", tmp_path / "scripts")
    shutil.copytree(project / "gan_kd", tmp_path / "gan_kd")
    pin(tmp_path, "tiny==1.0")
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python3.12", "python3.11", "python3.10", "python3.9", "python3", "python"):
        (folder / name).write_text("#!/bin/sh\nexit 127\n")
        (folder / name).chmod(0o755)
    path = {"PYTHON": "", "PATH": f"{folder}:{os.environ['PATH']}", "PIP_FIND_LINKS": project.as_uri()}
    done = setup(tmp_path, "--cpu", **path)
    assert done.returncode == 1 and "none is on PATH" in done.stderr
    (folder / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    done = setup(tmp_path, "--cpu", **path)
    assert done.returncode == 0, done.stderr
    assert installed(tmp_path) == "1.0"


def test_setup_leaves_a_foreign_environment_alone(project, tmp_path):
    shutil.copytree(project / "scripts", tmp_path / "scripts")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine").touch()
    done = setup(tmp_path)
    assert done.returncode == 1 and "move it away" in done.stderr
    assert (tmp_path / ".venv" / "mine").exists()


def test_setup_refuses_unknown_arguments(project):
    assert setup(project, "--gpus").returncode == 2
