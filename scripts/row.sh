# Sourced by train_voc.sh and train_coco.sh, in the project's folder.

# require_row FOLDER ROW [BEGIN]: ends with exit code 2 and the rows that there are, where there is no such recipe.
# BEGIN: of the names that are rows of the script.
require_row() {
    local begin=${3-} there
    if [ "$2" != base ] && [ -f "gan_kd/recipes/$1/$2.yaml" ] && [[ $2 == "$begin"* ]]; then return 0; fi
    there=$(find "gan_kd/recipes/$1" -name "$begin*.yaml" ! -name base.yaml -exec basename {} .yaml \; | sort | paste -sd ,)
    echo "error: there is no row $2; there are ${there//,/, }" >&2
    exit 2
}
