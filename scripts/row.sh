# Sourced by train_voc.sh and train_coco.sh, in the project's folder.

# require_row DATASET ROW: ends with exit code 2 and the rows that there are, where there is no such recipe.
require_row() {
    if [ "$2" != base ] && [ -f "gan_kd/recipes/$1/$2.yaml" ]; then return 0; fi
    local there
    there=$(find "gan_kd/recipes/$1" -name '*.yaml' ! -name base.yaml -exec basename {} .yaml \; | sort | paste -sd ,)
    echo "error: there is no row $2; there are ${there//,/, }" >&2
    exit 2
}
