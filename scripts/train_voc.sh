#!/usr/bin/env bash
# Train on VOC: the paper's MobileNet1.0 <- ResNet50 on GPUs 0 and 1, or with --demo on drawn images on any machine.
# Further arguments go to `python -m gan_kd train`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

recipe=(--recipe voc/mobilenet1.0-resnet50_v1)
arguments=()
for argument in "$@"; do
    if [ "$argument" = --demo ]; then
        recipe=(--recipe demo)
    else
        arguments+=("$argument")
    fi
done

bash scripts/setup.sh
exec .venv/bin/python -m gan_kd train "${recipe[@]}" ${arguments[@]+"${arguments[@]}"}
