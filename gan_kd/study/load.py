"""Reading studies: a shipped name or a .yaml file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from gan_kd.errors import UsageError
from gan_kd.recipe.convert import build, nearest
from gan_kd.recipe.load import blaming, find, names, parse_override, read
from gan_kd.study.schema import Search, Study

SHIPPED = Path(__file__).resolve().parents[1] / "studies"
#: Labels that stand for runs beside the arms.
_TAKEN = ("teacher", "search")
#: What the search itself sets, so that no trial does.
_FIXED = ("name", "train.seed", "teacher.weights", "data.holdout")


def load(name_or_path: str, folder: Path = Path(), shipped: Path = SHIPPED) -> tuple[Path, Study]:
    """The file of a shipped study, or the .yaml file named, from `folder` on, and what it says.

    UsageError with the key at fault.
    """
    path = find(name_or_path, folder, shipped, "study")
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
    return "\n".join(f"{name:<{width}}  {load(name, shipped=shipped)[1].description}" for name in found)


def sets(overrides: Sequence[str], path: str) -> bool:
    """Whether one of the overrides sets the key at `path` ('data.holdout'), by itself or in a map around it."""
    return any(_has(parse_override(override), path.split(".")) for override in overrides)


def _has(value: object, keys: Sequence[str]) -> bool:
    return not keys or (isinstance(value, dict) and keys[0] in value and _has(value[keys[0]], keys[1:]))


def _check(study: Study) -> None:
    """UsageError for values that do not fit each other."""
    for label in study.arms:
        if label in _TAKEN or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", label):
            raise UsageError(
                f"arms.{label}: a label is of letters, digits and _ . + -, begins with one of the first two, "
                f"and is not {' or '.join(_TAKEN)}"
            )
    for key, named in (("baseline", study.baseline), ("control", study.control)):
        if named is not None and named not in study.arms:
            raise UsageError(f"{key} {named} is not an arm{nearest(named, study.arms)}")
    if study.control == study.baseline:
        raise UsageError(f"control {study.control} is the baseline; name another arm, or none")
    _check_seeds("seeds", study.seeds)
    _check_fewer(study)
    _check_decisive(study)
    if study.search is not None:
        if study.chosen_by is not None:
            raise UsageError(f"search and chosen_by {study.chosen_by} both choose the settings; keep one of them")
        _check_search(study, study.search)


def _check_seeds(key: str, seeds: Sequence[int]) -> None:
    if not seeds:
        raise UsageError(f"{key} is empty: name at least one, better three")
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise UsageError(f"{key} names {seed} twice")


def _check_fewer(study: Study) -> None:
    for arm, seeds in study.fewer_seeds.items():
        if arm not in study.arms:
            raise UsageError(f"fewer_seeds.{arm} is not an arm{nearest(arm, study.arms)}")
        _check_seeds(f"fewer_seeds.{arm}", seeds)
        for seed in seeds:
            if seed not in study.seeds:
                raise UsageError(f"fewer_seeds.{arm}: {seed} is not among the study's seeds")
    if study.baseline in study.fewer_seeds:
        raise UsageError(f"fewer_seeds.{study.baseline}: the baseline needs every seed, for all are compared with it")


def _check_decisive(study: Study) -> None:
    for text, pair in zip(study.decisive, study.contrasts):
        if not all(pair):
            raise UsageError(f"decisive {text}: write ARM - ARM, with blanks around the minus")
        for label in pair:
            if label not in study.arms:
                raise UsageError(f"decisive {text}: {label} is not an arm{nearest(label, study.arms)}")
            if len(study.seeds_of(label)) < 2 <= len(study.seeds):
                raise UsageError(f"decisive {text}: {label} has one seed in fewer_seeds, too few for an interval")
        if len(set(pair)) == 1:
            raise UsageError(f"decisive {text}: it compares an arm with itself")
        if study.contrasts.count(pair) + study.contrasts.count(pair[::-1]) > 1:
            raise UsageError(f"decisive {text}: these two arms are compared twice")


def _check_search(study: Study, search: Search) -> None:
    _check_seeds("search.seeds", search.seeds)
    for seed in search.seeds:
        if seed in study.seeds:
            raise UsageError(
                f"search.seeds: {seed} is a seed of the study as well, and settings must not be chosen on its seeds"
            )
    for arm in search.trials:
        if arm not in study.arms:
            raise UsageError(f"search.trials.{arm} is not an arm{nearest(arm, study.arms)}")
    for arm in study.arms:
        if not search.trials.get(arm):
            raise UsageError(f"search.trials.{arm} is missing: every arm needs trials, as many as the others")
    numbers = {arm: len(search.trials[arm]) for arm in study.arms}
    if len(set(numbers.values())) > 1:
        told = ", ".join(f"{arm} {number}" for arm, number in numbers.items())
        raise UsageError(f"search.trials: every arm needs the same number of trials, to be fair (now {told})")
    _check_trial("search.set", shlex.join(search.set))
    for arm, trials in search.trials.items():
        for number, text in enumerate(trials, 1):
            _check_trial(f"search.trials.{arm}, trial {number}", text)


def _check_trial(where: str, text: str) -> None:
    try:
        overrides = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{where}: {text} cannot be split into KEY=VALUE ({str(error).lower()})") from None
    with blaming(where):
        for key in _FIXED:
            if sets(overrides, key):
                raise UsageError(f"{key} is not for a trial to set: the search does")
