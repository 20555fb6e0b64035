#!/usr/bin/env bash
# Train a row of the paper's tables 1 and 3, or YOLOv3, on GPUs: bash scripts/train_voc.sh [ROW] [OPTION...]
# ROW is a recipe of gan_kd/recipes/voc without the folder, such as resnet18_v1-vgg16_atrous, mobilenetv2_1.0 or
# teacher-resnet50_v1; without it MobileNet1.0 <- ResNet50. Others are written with their folder, as in
# faster_rcnn/resnet50_v1b-resnet101_v1d-cosine (table 3) and yolo3/voc-mobilenet1.0-darknet53-gan. With --demo drawn
# images on any machine.
# Options go to `python -m gan_kd train`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/row.sh

recipe=voc/mobilenet1.0-resnet50_v1 row=""
case ${1--} in
    -*) ;;
    faster_rcnn/*)
        row=$1 recipe=$1
        require_row faster_rcnn "${row#*/}"
        shift ;;
    yolo3/*)
        row=$1 recipe=$1
        require_row yolo3 "${row#*/}" voc-
        shift ;;
    *)
        row=$1 recipe=voc/$1
        require_row voc "$row"
        shift ;;
esac
arguments=()
for argument in "$@"; do
    if [ "$argument" != --demo ]; then
        arguments+=("$argument")
    elif [ -z "$row" ]; then
        recipe=demo
    else
        echo "error: --demo is a recipe of its own; leave out $row or --demo" >&2 && exit 2
    fi
done

bash scripts/setup.sh
exec .venv/bin/python -m gan_kd train --recipe "$recipe" ${arguments[@]+"${arguments[@]}"}
