"""Several processes and machines as one training."""
