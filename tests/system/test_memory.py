"""What MXNet keeps of input sizes: all of them, or few where a network expects many."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gan_kd.recipe import load
from gan_kd.system.memory import expect_many_sizes
from gan_kd.training.networks import assemble

LIMIT = "MXNET_MKLDNN_CACHE_NUM"
# Convolutions of 1,500 sizes, more than oneDNN's own store has room for, and the growth of the process, KiB.
PROGRAM = """
import sys
from gan_kd import compat
from gan_kd.system.memory import expect_many_sizes, release_memory
from mxnet import nd
if sys.argv[1] == "many":
    expect_many_sizes()
weight, bias = nd.ones((32, 32, 3, 3)), nd.zeros((32,))
def resident():
    release_memory()
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
def run(k):
    image = nd.ones((1, 32, 8 + k % 50, 8 + k // 50))
    nd.Convolution(image, weight, bias, kernel=(3, 3), num_filter=32).wait_to_read()
run(0)
before = resident()
for k in range(1500):
    run(k)
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_kernels_of_many_sizes_do_not_pile_up() -> None:
    environment = {name: value for name, value in os.environ.items() if name != LIMIT}
    grown = [
        int(subprocess.check_output([sys.executable, "-c", PROGRAM, word], env={**environment, "OMP_NUM_THREADS": "1"}))
        for word in ("few", "many")
    ]
    assert grown[1] < 0.6 * grown[0], grown


@pytest.mark.parametrize(
    ("recipe", "overrides", "set_"),
    [
        ("faster_rcnn/mini", [], True),
        ("mini/gfl", ["gfl.short=128", "gfl.longest=256"], True),
        ("mini/gfl", [], False),
        ("yolo3/demo", [], False),
    ],
)
def test_networks_of_many_sizes_ask_for_it(
    monkeypatch: pytest.MonkeyPatch, recipe: str, overrides: list[str], set_: bool
) -> None:
    monkeypatch.delenv(LIMIT, raising=False)
    of = load(recipe, overrides)
    assemble(of, ["cat"])
    assert (LIMIT in os.environ) == set_


def test_the_users_own_limit_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "7")
    expect_many_sizes()
    assert os.environ[LIMIT] == "7"
