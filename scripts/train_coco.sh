#!/usr/bin/env bash
# Train a row of the paper's table 2, or YOLOv3, on GPUs 0 and 1: bash scripts/train_coco.sh [ROW] [OPTION...]
# ROW is a recipe of gan_kd/recipes/coco without the folder, such as mobilenet0.75-resnet50_v1, mobilenetv2_1.0 or
# teacher-resnet50_v1; without it MobileNet1.0 <- ResNet50. YOLOv3's are written with their folder, as in
# yolo3/coco-mobilenet1.0-darknet53-gan. Options go to `python -m gan_kd train`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/row.sh

recipe=coco/mobilenet1.0-resnet50_v1
case ${1--} in
    -*) ;;
    yolo3/*)
        recipe=$1
        require_row yolo3 "${recipe#*/}" coco-
        shift ;;
    *)
        recipe=coco/$1
        require_row coco "$1"
        shift ;;
esac

bash scripts/setup.sh
exec .venv/bin/python -m gan_kd train --recipe "$recipe" "$@"
