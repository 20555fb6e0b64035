#!/usr/bin/env python3
"""Measure any params file of a run: python scripts/eval_voc.py --params FILE; --help tells the rest."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gan_kd.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
