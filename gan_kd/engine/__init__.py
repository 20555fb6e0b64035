"""Training and evaluation: contexts, stages, checkpoints, logs."""

from gan_kd import compat  # noqa: F401  (NumPy aliases and CUDA libraries before MXNet is imported)
