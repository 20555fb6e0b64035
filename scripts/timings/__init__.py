"""Speed against rivals, as ratios of what is timed in turn in one run (scripts/benchmark.py)."""
