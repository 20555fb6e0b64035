"""doctor.py and gpu.py, with a driver library compiled here and broken modules put before the real ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gan_kd.commands import doctor

ROOT = Path(__file__).resolve().parents[2]
CC = shutil.which("cc") or shutil.which("gcc")

# The part of the CUDA driver API that gpu.py calls: COUNT GPUs of capability MAJOR.MINOR.
DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return flags ? 1 : INIT; }
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 7 + ordinal; return ordinal < COUNT ? 0 : 101; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Drawn GPU", size); return device < 7; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? MAJOR : attribute == 76 ? MINOR : -1;
    return device < 7;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 12ul << 30; return device < 7; }
"""


def driver(folder: Path, **settings: int) -> dict[str, str]:
    """Compile the library; returns the environment in which it is the machine's NVIDIA driver."""
    if not CC:
        pytest.skip("no C compiler")
    values = {"INIT": 0, "VERSION": 12020, "COUNT": 1, "MAJOR": 8, "MINOR": 6, **settings}
    source = folder / "driver.c"
    source.write_text(DRIVER)
    defines = [f"-D{name}={value}" for name, value in values.items()]
    subprocess.run([CC, "-shared", "-fPIC", *defines, "-o", folder / "libcuda.so.1", source], check=True)
    return {"LD_LIBRARY_PATH": str(folder)}


def python(code: str, *before: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code with the folders `before` in front of the installed modules."""
    path = os.pathsep.join(map(str, (*before, ROOT)))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def gpu_problem(index: int, *before: Path, **environment: str) -> str:
    done = python(f"from gan_kd.system.gpu import gpu_problem; print(gpu_problem({index}))", *before, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def distribution(folder: Path, name: str) -> None:
    """Let `name` 1.9.1 be installed in a folder, without its files."""
    info = folder / f"{name.replace('-', '_')}-1.9.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.9.1\n")


# gpu.py


@pytest.mark.parametrize("capability", [(9, 0), (12, 0), (3, 7)])
def test_gpus_without_machine_code_are_refused(tmp_path, capability):
    environment = driver(tmp_path, MAJOR=capability[0], MINOR=capability[1])
    problem = gpu_problem(0, **environment)
    assert f"Drawn GPU (compute capability {capability[0]}.{capability[1]})" in problem
    assert "--contexts cpu:0" in problem


@pytest.mark.parametrize("capability", [(5, 0), (6, 1), (7, 5), (8, 0), (8, 9)])
def test_gpus_with_machine_code_are_accepted(tmp_path, capability):
    environment = driver(tmp_path, MAJOR=capability[0], MINOR=capability[1])
    distribution(tmp_path, "mxnet-cu112")
    assert gpu_problem(0, tmp_path, **environment) == "None"


def test_the_cpu_build_is_named(tmp_path):
    distribution(tmp_path, "mxnet")
    no_packages = "import sys; sys.path = [path for path in sys.path if 'site-packages' not in path]"
    code = f"{no_packages}; from gan_kd.system.gpu import gpu_problem; print(gpu_problem(0))"
    done = python(code, tmp_path, **driver(tmp_path))
    assert "setup.sh --gpu" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("settings", "index", "words"),
    [
        ({"COUNT": 2}, 2, "shows 2 GPU(s)"),
        ({"INIT": 100}, 0, "shows no GPU"),
        ({"INIT": 999}, 0, "cuInit gives error 999"),
        ({"VERSION": 10020}, 0, "serves CUDA 10.2"),
    ],
)
def test_what_the_driver_lacks_is_named(tmp_path, settings, index, words):
    assert words in gpu_problem(index, **driver(tmp_path, **settings))


def test_a_missing_driver_is_named(tmp_path):
    (tmp_path / "libcuda.so.1").write_text("not a library, whatever the machine has")
    assert "no NVIDIA driver" in gpu_problem(0, LD_LIBRARY_PATH=str(tmp_path))


# doctor.py

MAIN = "import sys; from gan_kd.commands.doctor import main; sys.exit(main())"


def test_importing_doctor_needs_nothing_but_the_standard_library():
    code = "import sys; import gan_kd.commands.doctor; print({'mxnet', 'numpy', 'cv2'} & set(sys.modules))"
    assert python(code).stdout.strip() == "set()"


def test_doctor_lists_what_is_there_and_what_to_do(tmp_path):
    done = python(MAIN, HOME=str(tmp_path), **driver(tmp_path, MAJOR=9, MINOR=0))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line[:1].strip()}
    assert set(rows) >= {"Python", "Libraries", "MXNet", "GPU", "CPU", "Space", "Data", "Model", "Ready"}
    assert "numpy 1." in rows["Libraries"] and "1.9.1" in rows["MXNet"] and "CUDA 12.2" in rows["GPU"]
    assert "Drawn GPU (compute capability 9.0), 12 GiB: cannot be used" in done.stdout
    assert "note: GPU 0 cannot be used" in done.stdout and "download voc" in done.stdout
    assert done.stdout.endswith("Ready to train with --contexts cpu:0\n")


@pytest.mark.parametrize(
    ("module", "error", "words"),
    [
        ("cv2", "ImportError('libGL.so.1: cannot open')", "the Python module cv2 does not load (libGL.so.1"),
        ("mxnet", "OSError('libquadmath.so.0: cannot open')", "apt-get install libquadmath0"),
        ("mxnet", "OSError('libcuda.so.1: cannot open')", "setup.sh --cpu"),
        ("gluoncv", "ImportError('no gluoncv')", "setup.sh"),
    ],
)
def test_doctor_names_what_does_not_load(tmp_path, module, error, words):
    (tmp_path / f"{module}.py").write_text(f"raise {error}\n")
    done = python(MAIN, tmp_path)
    errors = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(errors) == 1 and words in errors[0], done.stdout + done.stderr
    assert "Ready" not in done.stdout


def test_doctor_names_a_numpy_that_is_too_new(tmp_path):
    (tmp_path / "numpy.py").write_text("__version__ = '2.1.0'\n")
    done = python("from gan_kd.commands.doctor import import_problem; print(import_problem())", tmp_path)
    assert "NumPy 2.1.0" in done.stdout


def test_doctor_names_two_builds_of_mxnet(tmp_path):
    for name in ("mxnet", "mxnet-cu112"):
        distribution(tmp_path, name)
    done = python("from gan_kd.commands.doctor import import_problem; print(import_problem())", tmp_path)
    assert "mxnet and mxnet-cu112 are both installed" in done.stdout


def test_data_sets_are_described(tmp_path):
    splits = tmp_path / "VOC2007" / "ImageSets" / "Main"
    splits.mkdir(parents=True)
    (splits / "trainval.txt").write_text("000001\n000002\n")
    (splits / "cat_trainval.txt").write_text("000001 -1\n")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").touch()
    (tmp_path / "annotations" / "instances_train2017.json").touch()  # without its images
    (tmp_path / "val2017").mkdir()
    assert doctor.describe_dataset(tmp_path) == [
        f"{tmp_path / 'VOC2007'}: VOC layout, trainval 2",
        f"{tmp_path}: COCO layout, val2017",
    ]
    assert doctor.describe_dataset(tmp_path / "nowhere") == []


def test_real_data_sets_are_described(shared):
    lines = doctor.describe_dataset(shared / "data" / "voc12-animals")
    assert lines == [f"{shared}/data/voc12-animals/VOC2012: VOC layout, train 1697, val 1729"]
