"""The profile of a training step, in a process of its own: it changes how MXNet runs operators."""

import subprocess
import sys
from pathlib import Path


def test_convolution_has_its_share():
    command = [sys.executable, "-m", "scripts.timings.operators", "mobilenet0.25", "128", "2"]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shares = {name: float(share) for share, name in (line.split() for line in done.stdout.splitlines()[1:])}
    assert {"Convolution", "_backward_Convolution"} <= shares.keys()  # small ones come and go with the machine's load
    assert sum(shares.values()) <= 100.1
    assert all("," not in name for name in shares)  # an operator each, not a bulk of them
