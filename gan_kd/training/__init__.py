"""Stages, steps, checkpoints and logs of a training."""
