#!/usr/bin/env python3
"""Speed against rivals, as ratios of what is timed in turn: python scripts/benchmark.py; --help tells the rest."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.timings.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
