"""Detectors: each family in its room, and what families share."""
