"""GAN-Knowledge Distillation for one-stage object detection (arXiv 1906.08467) on MXNet, Gluon and GluonCV."""

import sys as _sys

__version__ = "0.1.0"


class _BeforeMXNet:
    """Imports `gan_kd.compat` when MXNet is imported, which needs it first; commands without MXNet do not wait for it.

    Eagerly it would take NumPy's 0.1 s of every command, and with the GPU build the loading of CUDA's libraries.
    """

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """The import system's question where a module is: never answered here."""
        if name == "mxnet":
            import gan_kd.compat  # noqa: F401


_sys.meta_path.insert(0, _BeforeMXNet)
