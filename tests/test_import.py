"""The package before MXNet: that it was imported is enough, and it costs nothing until then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("first", ["gan_kd", "gan_kd.errors", "gan_kd, gluoncv"])
def test_importing_the_package_is_enough_for_mxnet(first: str) -> None:
    code = (
        "import sys, gan_kd; assert not {'numpy', 'mxnet', 'gan_kd.compat'} & {*sys.modules}; "
        f"import {first}; import mxnet as mx; print(mx.nd.zeros(1).asscalar())"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.stdout == "0.0\n", done.stderr
