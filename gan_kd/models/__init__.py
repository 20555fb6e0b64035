"""Networks: extractor + head = detector, the adapters between two networks, and the discriminators."""

from gan_kd import compat  # noqa: F401
