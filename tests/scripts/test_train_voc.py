"""scripts/train_voc.sh where nothing of what the paper's training needs is there."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="no .venv: scripts/setup.sh was not run here")
def test_everything_that_is_missing_is_named_in_one_sentence(tmp_path):
    """No GPU 41, no data, and a network that leads nowhere."""
    nowhere = {key: "http://127.0.0.1:9" for key in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY")}
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "train_voc.sh"), "--gpus", "41", "--save-prefix", str(tmp_path / "runs")],
        env={**os.environ, **nowhere, "HOME": str(tmp_path), "MXNET_HOME": str(tmp_path)},
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: GPU 41 cannot be used"), done.stderr
    assert "there is no data set" in last and "ssd_512_resnet50_v1_voc cannot be downloaded" in last
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()
