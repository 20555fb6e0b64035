"""A trained detector in the forms that products run: MXNet's symbol, ONNX, int8."""

from gan_kd import compat  # noqa: F401
