"""Values that the published programs computed (../shared/reference)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def reference(shared: Path) -> Mapping[str, np.ndarray]:
    path = shared / "reference/gfl.npz"
    if not path.is_file():
        pytest.skip("the reference values of GFL (../shared/reference/gfl.npz) are not beside this checkout")
    return dict(np.load(path))
