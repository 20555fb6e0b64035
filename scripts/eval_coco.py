#!/usr/bin/env python3
"""COCO's twelve numbers of a params file of a run: python scripts/eval_coco.py --params FILE; --help tells the rest."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gan_kd.__main__ import main

if __name__ == "__main__":
    # Before the user's own: a recipe that is measured as VOC is measured as COCO, one of another data set refused.
    sys.exit(main(["eval", "--set", "eval.metric=coco", *sys.argv[1:]]))
