"""Reading studies: a shipped name or a .yaml file."""

from __future__ import annotations

import re
from pathlib import Path

from gan_kd.errors import UsageError
from gan_kd.recipe.convert import build, nearest
from gan_kd.recipe.load import blaming, find, names, read
from gan_kd.study.schema import Study

SHIPPED = Path(__file__).resolve().parents[1] / "studies"


def load(name_or_path: str, shipped: Path = SHIPPED) -> tuple[Path, Study]:
    """The file of a shipped study, or the .yaml file named, and what it says. UsageError with the key at fault."""
    path = find(name_or_path, Path(), shipped, "study")
    with blaming(path):
        study: Study = build(Study, read(path, "study"), top=Study)
        _check(study)
    return path, study


def show(shipped: Path = SHIPPED) -> str:
    """The shipped studies, a line each."""
    found = names(shipped)
    if not found:
        return "no study comes with this package; name a .yaml file (python -m gan_kd study --help)"
    width = max(map(len, found))
    return "\n".join(f"{name:<{width}}  {load(name, shipped)[1].description}" for name in found)


def _check(study: Study) -> None:
    """UsageError for values that do not fit each other."""
    for label in study.arms:
        if label == "teacher" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", label):
            raise UsageError(
                f"arms.{label}: a label is of letters, digits and _ . + -, begins with one of the first two, "
                "and is not teacher"
            )
    for key, named in (("baseline", study.baseline), ("control", study.control)):
        if named is not None and named not in study.arms:
            raise UsageError(f"{key} {named} is not an arm{nearest(named, study.arms)}")
    if study.control == study.baseline:
        raise UsageError(f"control {study.control} is the baseline; name another arm, or none")
    if not study.seeds:
        raise UsageError("seeds is empty: name at least one, better three")
    for seed in study.seeds:
        if study.seeds.count(seed) > 1:
            raise UsageError(f"seeds names {seed} twice")
