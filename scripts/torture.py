#!/usr/bin/env python3
"""Small runs, killed at random moments and resumed, must equal an undisturbed one; --help tells the rest."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gan_kd.torture import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
