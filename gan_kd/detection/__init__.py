"""Detection in images and videos with a params file."""

from gan_kd import compat  # noqa: F401
