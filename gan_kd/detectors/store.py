"""Files of GluonCV's model zoo."""

from __future__ import annotations

from gluoncv.model_zoo.model_store import get_model_file, pretrained_model_list

from gan_kd.errors import RunError, UsageError
from gan_kd.system.console import as_asked


def weights_file(name: str) -> str:
    """Path of a file of GluonCV's zoo, downloaded unless it is in MXNet's folder of models already."""
    if name not in pretrained_model_list():
        raise UsageError(f"GluonCV publishes no weights of {name}; name a local .params file")
    try:
        with as_asked():
            return get_model_file(name)
    except Exception as error:  # requests, zipfile, portalocker and GluonCV itself: no common base but this
        raise RunError(
            f"GluonCV's weights of {name} cannot be downloaded ({type(error).__name__}); "
            "connect to the internet or name a local .params file"
        ) from None
