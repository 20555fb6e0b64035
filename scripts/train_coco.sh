#!/usr/bin/env bash
# Train a row of the paper's table 2 on GPUs 0 and 1: bash scripts/train_coco.sh [ROW] [OPTION...]
# ROW is a recipe of gan_kd/recipes/coco without the folder, such as mobilenet0.75-resnet50_v1, mobilenetv2_1.0 or
# teacher-resnet50_v1; without it MobileNet1.0 <- ResNet50. Options go to `python -m gan_kd train`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/row.sh

row=mobilenet1.0-resnet50_v1
case ${1--} in
    -*) ;;
    *)
        row=$1
        require_row coco "$row"
        shift ;;
esac

bash scripts/setup.sh
exec .venv/bin/python -m gan_kd train --recipe "coco/$row" "$@"
