"""What every test shares. Loaded before any test module, so `compat` comes before MXNet here too."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

# One thread a process: these networks are too small to gain from more. OpenMP reads it when MXNet is loaded; a
# process that a test starts inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from gan_kd import compat  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]

# In the background or under nohup these are ignored, and so by every process that a test starts to send them to.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and ImageNet weights beside the project; skips where it is not there."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("real images and weights (../shared) are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def reference(shared: Path) -> Mapping[str, np.ndarray]:
    """What the published programs of GFL and Localization Distillation computed, float64 and int64 arrays by name."""
    path = shared / "reference/gfl.npz"
    if not path.is_file():
        pytest.skip("the reference values of GFL (../shared/reference/gfl.npz) are not beside this checkout")
    return dict(np.load(path))


@pytest.fixture(scope="session")
def check_gradients() -> Callable[..., None]:
    """check(block, inputs): the gradients of a block equal central differences, see `tests.gradients.check`."""
    from tests.gradients import check

    return check
