"""Speed against rivals, as ratios of what is timed in turn in one run (scripts/benchmark.py)."""

from gan_kd import compat  # noqa: F401  (NumPy aliases and CUDA libraries before MXNet is imported)
