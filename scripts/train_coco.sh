#!/usr/bin/env bash
# Train on COCO: the paper's MobileNet1.0 <- ResNet50 (table 2) on GPUs 0 and 1.
# Further arguments go to `python -m gan_kd train`, such as --recipe coco/mobilenet0.75-resnet50_v1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
exec .venv/bin/python -m gan_kd train --recipe coco/mobilenet1.0-resnet50_v1 "$@"
