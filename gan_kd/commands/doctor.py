"""`python -m gan_kd doctor`: what this machine offers for training, what is wrong with it, and the way out.

Only the standard library is imported at module level: it has to run where the environment is broken.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from gan_kd.errors import RunError
from gan_kd.system import gpu

# What the package imports beside MXNet and GluonCV; NumPy first, for the others need it.
LIBRARIES = (
    "numpy",
    "cv2",
    "matplotlib",
    "PIL",
    "pycocotools.mask",
    "requests",
    "scipy",
    "tensorboardX",
    "tqdm",
    "yaml",
)
SETUP = "run bash scripts/setup.sh"
# System libraries that the wheels of MXNet link and do not bring, by the name that the loader misses.
SYSTEM_LIBRARIES = {
    "libcuda.so.1": "install the NVIDIA driver, or MXNet's CPU build: bash scripts/setup.sh --cpu",
    "libgomp.so.1": "install it (Debian, Ubuntu: apt-get install libgomp1, Fedora: dnf install libgomp)",
    "libquadmath.so.0": "install it (Debian, Ubuntu: apt-get install libquadmath0, Fedora: libquadmath)",
}
GIB = 2**30


class Findings(NamedTuple):
    """`errors` stop all training, `notes` less (a GPU, a data set, a large run); `gpus` can be trained on."""

    errors: list[str]
    notes: list[str]
    gpus: list[str]


def main() -> int:
    """Print the list. Returns the exit code: 0 where training on the CPU can work, else 1."""
    findings = Findings([], [], [])
    sections = {
        "Python": _python,
        "Libraries": _libraries,
        "MXNet": _mxnet,
        "GPU": _gpus,
        "CPU": _cpu,
        "Space": _space,
        "Data sets": _datasets,
        "Model zoo": _model_zoo,
    }
    for label, section in sections.items():
        for line in section(findings):
            print(f"{label:<10} {line}", flush=True)
            label = ""
    print()
    for title, sentences in (("error", findings.errors), ("note", findings.notes)):
        for sentence in sentences:
            print(f"{title}: {sentence}")
    if not findings.errors:
        gpus = f"--gpus {','.join(findings.gpus)} or " if findings.gpus else ""
        print(f"Ready to train with {gpus}--contexts cpu:0")
    return 1 if findings.errors else 0


def import_problem() -> str | None:
    """Import what training needs. Returns None where all of it loads, else one sentence with the way out."""
    for name in LIBRARIES:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a damaged or foreign build may raise anything
            return f"the Python module {name} does not load ({error}); {SETUP}."
        if name == "numpy" and not module.__version__.startswith("1."):
            return f"NumPy {module.__version__} is installed, and MXNet 1.9.1 needs one below 2; {SETUP}."
    wheels = gpu.mxnet_wheels()
    if len(wheels) > 1:
        return f"{' and '.join(wheels)} are both installed, into the same folder; delete .venv and {SETUP}."
    try:
        importlib.import_module("gan_kd.compat")
        for name in ("mxnet", "gluoncv"):
            importlib.import_module(name)
    except Exception as error:
        cure = next((text for library, text in SYSTEM_LIBRARIES.items() if library in str(error)), SETUP)
        return f"MXNet or GluonCV does not load ({error}); {cure}."
    return None


def _python(findings: Findings) -> Iterator[str]:
    yield f"{platform.python_version()} ({sys.executable})"
    if not (3, 9) <= sys.version_info[:2] <= (3, 12):
        findings.notes.append("the pinned libraries have wheels for Python 3.9 to 3.12, not for this one.")


def _libraries(findings: Findings) -> Iterator[str]:
    problem = import_problem()
    if problem:
        findings.errors.append(problem)
    loaded = [sys.modules[name] for name in LIBRARIES if name in sys.modules]
    versions = [f"{module.__name__} {getattr(module, '__version__', '')}".strip() for module in loaded]
    # GluonCV's own __version__ names another release.
    gluoncv = [f"gluoncv {dist.version}" for dist in metadata.distributions(name="gluoncv")]
    yield ", ".join(versions + gluoncv)


def _mxnet(findings: Findings) -> Iterator[str]:
    wheels = " and ".join(gpu.mxnet_wheels()) or "no wheel"
    mx = sys.modules.get("mxnet")
    if mx is None:
        yield f"does not load ({wheels})"
        return
    yield f"{mx.__version__} (wheel {wheels}), {mx.libinfo.find_lib_path()[0]}"
    yield "built with " + " ".join(feature.name for feature in mx.runtime.feature_list() if feature.enabled)
    problem = _trial(mx.cpu())
    if problem:
        findings.errors.append(f"MXNet fails on the CPU: {problem}; delete .venv and {SETUP}.")


def _trial(ctx: Any) -> str | None:
    """Train one step of a convolution on a device. Returns what went wrong."""
    import mxnet as mx

    try:
        image = mx.nd.ones((2, 3, 8, 8), ctx=ctx)
        weight = mx.nd.ones((4, 3, 3, 3), ctx=ctx)
        weight.attach_grad()
        with mx.autograd.record():
            maps = mx.nd.Convolution(image, weight, no_bias=True, kernel=(3, 3), num_filter=4)
        maps.backward()
        # Ones everywhere: each output sums 27 products, each weight's gradient 2 images of 6x6 outputs.
        right = (maps.asnumpy() == 27).all() and (weight.grad.asnumpy() == 72).all()
    except mx.MXNetError as error:
        return str(error).strip().splitlines()[-1]
    return None if right else "a convolution gives wrong numbers"


def _gpus(findings: Findings) -> Iterator[str]:
    try:
        driver = gpu.read_driver()
    except RunError as error:
        yield str(error)
        return
    yield f"NVIDIA driver for CUDA {driver.cuda[0]}.{driver.cuda[1]}, {len(driver.gpus)} GPU(s)"
    if driver.cuda < (11, 8):
        findings.notes.append(
            "the NVIDIA driver is older than CUDA 11.8: where a GPU fails with an error of NVRTC or PTX,"
            " update the driver or set MXNET_USE_FUSION=0."
        )
    for index, device in enumerate(driver.gpus):
        problem = gpu.gpu_problem(index)
        if not problem and "mxnet" in sys.modules:
            failure = _trial(sys.modules["mxnet"].gpu(index))
            problem = failure and f"GPU {index} cannot be used: MXNet fails on it: {failure}."
        if problem:
            findings.notes.append(problem)
        else:
            findings.gpus.append(str(index))
        yield f"{index}: {device}, {device.memory / GIB:.0f} GiB: {'cannot' if problem else 'can'} be used"


def _cpu(findings: Findings) -> Iterator[str]:
    names = (line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if "model name" in line)
    threads = os.environ.get("OMP_NUM_THREADS")
    yield f"{next(names, platform.machine())}, {len(os.sched_getaffinity(0))} cores for this process"
    unset = "OMP_NUM_THREADS is not set: training takes a thread a core, one core left to loader workers"
    yield f"OMP_NUM_THREADS={threads}" if threads else unset


def _space(findings: Findings) -> Iterator[str]:
    for line in _read("/proc/meminfo"):
        if line.startswith("MemAvailable"):
            yield f"{int(line.split()[1]) * 1024 / GIB:.1f} GiB of memory available"
    for folder, least, use in (
        (Path.cwd(), 2.0, "runs/ grows by a checkpoint an epoch"),
        *((home, 0.5, "downloaded weights go to ~/.mxnet") for home in _home()),
    ):
        if folder.is_dir():
            free = shutil.disk_usage(folder).free / GIB
            yield f"{free:.1f} GiB free in {folder}"
            if free < least:
                findings.notes.append(f"only {free:.1f} GiB are free in {folder}, and {use}.")


def _datasets(findings: Findings) -> Iterator[str]:
    here = Path("data")
    usual = [home / ".mxnet" / "datasets" / name for home in _home() for name in ("voc", "coco")]
    folders = [*usual, here, *sorted(path for path in here.glob("*") if path.is_dir())]
    found = [line for folder in folders for line in describe_dataset(folder)]
    yield from found or [f"none in {', '.join(map(str, usual))} and data/"]
    for folder in usual:
        name = folder.name
        if not describe_dataset(folder):
            command = f"python -m gan_kd download {name}"
            findings.notes.append(f"no {name.upper()} in {folder}; {command} fetches it.")


def describe_dataset(folder: Path) -> list[str]:
    """One line for every data set below `folder` in VOC's or COCO's layout: its place and its splits."""
    lines = []
    for splits in (folder / "ImageSets" / "Main", *sorted(folder.glob("VOC*/ImageSets/Main"))):
        # aeroplane_train.txt and its like list the images of one class.
        counts = {
            file.stem: sum(bool(line.strip()) for line in _read(file))
            for file in sorted(splits.glob("*.txt"))
            if "_" not in file.stem
        }
        if counts:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            lines.append(f"{splits.parents[1]}: VOC layout, {listed}")
    images = sorted(
        file.stem.partition("_")[2]
        for file in folder.glob("annotations/instances_*.json")
        if (folder / file.stem.partition("_")[2]).is_dir()
    )
    if images:
        lines.append(f"{folder}: COCO layout, {', '.join(images)}")
    return lines


def _model_zoo(findings: Findings) -> Iterator[str]:
    folder = Path(os.path.expanduser(os.environ.get("MXNET_HOME", "~/.mxnet"))) / "models"
    files = sorted(file.stem for file in folder.glob("*.params"))
    yield f"{folder}: " + (", ".join(files) or "empty; weights are fetched on first use")


def _home() -> list[Path]:
    """The user's home folder; none where there is none."""
    try:
        return [Path.home()]
    except RuntimeError:
        return []


def _read(path: str | Path) -> list[str]:
    """Lines of a text file; none where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
