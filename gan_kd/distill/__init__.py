"""Distillation methods: each turns teacher and student feature maps into named losses for the student."""

from gan_kd import compat  # noqa: F401  (NumPy aliases and CUDA libraries before MXNet is imported)
