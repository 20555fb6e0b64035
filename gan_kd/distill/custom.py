"""Distillers of users: classes that a recipe names by their dotted names.

A recipe then names code that is run. It is imported when a training starts and never when a recipe is read, checked,
reported or evaluated, and only the module that it names.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gan_kd.distill.base import Compared, Distiller
from gan_kd.errors import UsageError
from gan_kd.recipe import Recipe
from gan_kd.recipe.convert import nearest
from gan_kd.recipe.schema import DISTILLERS

_TAKEN = ("detector", "bridge", "optimiser", "parameters", "adversarial", *DISTILLERS)  # parts of a checkpoint


def load_all(recipe: Recipe) -> dict[str, int]:
    """Import every distiller of the recipe that is not ours, before hours of training. UsageError as `load`.

    Returns the epochs of their warm-up, where there are any, by dotted name: of the class, or of an argument of that
    name. What `__init__` makes of others is not known yet.
    """
    warmups = {}
    for stage in recipe.stages.values():
        names: dict[str, str] = {}
        for dotted in stage.distillers:
            if dotted in DISTILLERS:
                continue
            found = load(recipe, dotted)
            other = names.setdefault(found.name, dotted)
            if other != dotted:
                raise UsageError(f"the distillers {other} and {dotted} have the same attribute `name`; change one")
            epochs = recipe.distill.custom.get(dotted, {}).get("warmup_epochs", found.warmup_epochs)
            if isinstance(epochs, int) and epochs > 0:
                warmups[dotted] = epochs
    return warmups


def build(recipe: Recipe, name: str, compared: Compared) -> Distiller:
    """The distiller `package.module.Class(compared, **arguments)`, with the arguments of distill.custom."""
    made = load(recipe, name)(compared, **recipe.distill.custom.get(name, {}))
    assert isinstance(made, Distiller)
    return made


def load(recipe: Recipe, name: str) -> Any:
    """The class of a dotted name, found as Python finds modules, from the current folder on.

    UsageError: no such module or class, no Distiller, or arguments that it does not take.
    """
    path, _, wanted = name.rpartition(".")
    what = f"the distiller {name}"
    with _current_folder():
        try:
            module = importlib.import_module(path)
        except Exception as error:  # whatever a user's module raises
            raise UsageError(
                f"{what}: its module {path} cannot be imported from the current folder or the environment "
                f"({type(error).__name__}: {error})"
            ) from error
    found = getattr(module, wanted, None)
    if not (inspect.isclass(found) and issubclass(found, Distiller)):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value) and _is_own(value)]
        raise UsageError(
            f"{what}: {path} has no subclass of gan_kd.distill.base.Distiller of this name{nearest(wanted, classes)}"
        )
    if not found.name.isidentifier() or found.name in _TAKEN:
        raise UsageError(f"{what}: its attribute `name`, '{found.name}', is no plain name or is taken; give it another")
    try:
        inspect.signature(found).bind(None, **recipe.distill.custom.get(name, {}))
    except TypeError as error:
        raise UsageError(f"{what} does not take what distill.custom gives it: {error}") from error
    return found


def _is_own(kind: type) -> bool:
    return issubclass(kind, Distiller) and kind is not Distiller


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """As with `python -m`, for those who started another command."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
