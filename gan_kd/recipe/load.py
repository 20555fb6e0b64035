"""Reading recipes: YAML files that inherit from each other, overridden from the command line."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gan_kd.errors import UsageError
from gan_kd.recipe.check import check
from gan_kd.recipe.convert import build, nearest, to_yaml
from gan_kd.recipe.schema import Recipe
from gan_kd.system.paths import expanded
from gan_kd.system.untrusted import read_bytes

SHIPPED = Path(__file__).resolve().parents[1] / "recipes"
_LARGEST = 200_000  # bytes; a recipe with every knob has 4 kB, and PyYAML reads about 0.1 MB a second
_MOST_NODES, _MOST_ANCESTORS = 100_000, 30


def _problem(what: str, where: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=where.start_mark)


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys silently; a recipe has each key once.

    A few aliases within each other stand for gigabytes: nodes are counted as if aliases were written out, and an alias
    within its own anchor, which has no end, is refused. So are whole numbers beyond 64 bits: some cannot be printed.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._sizes: dict[str, int] = {}  # of what has an anchor

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event, before = self.peek_event(), self._nodes
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                raise _problem(f"alias *{event.anchor} lies within its own anchor", event)
            self._nodes += self._sizes.get(event.anchor, 0)
        node = super().compose_node(parent, index)
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise _problem(f"it has more than {_MOST_NODES} values, aliases written out", event)
        if not isinstance(event, yaml.AliasEvent) and event.anchor is not None:
            self._sizes[event.anchor] = self._nodes - before
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _problem(f"key {key.value} is given twice", key)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) >= 2**63:
            raise _problem("a whole number has more than 64 bits", node)
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _parse(text: str) -> Any:
    """The value of a YAML text; UsageError with what is wrong and in which line."""
    return copy.deepcopy(_parsed(text))


@functools.lru_cache(256)  # all recipes inherit from a few
def _parsed(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise UsageError("it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise UsageError(_first_problem(error)) from None
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # PyYAML's, for 2020-02-31, !!int x, ...
        raise UsageError(f"it has a value that cannot be ({error})") from None


@functools.cache
def names(shipped: Path = SHIPPED) -> tuple[str, ...]:
    """Names of the recipes (or of what else is in `shipped`) that come with the package, as load() takes them."""
    return tuple(sorted(path.relative_to(shipped).with_suffix("").as_posix() for path in shipped.rglob("*.yaml")))


def load(source: str | Path | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a shipped name or of a .yaml file, merged over what it inherits, overridden and checked.

    A Recipe, too, is overridden and checked. `inherits: NAME` (a shipped recipe, or a .yaml file relative to the
    inheriting one) merges maps key by key and replaces lists; null takes a stage away. Name and description are
    not inherited. Overrides are texts 'a.b=value', the value in YAML, later ones winning. Raises UsageError: no
    such recipe, broken YAML, and what from_dict refuses.
    """
    if isinstance(source, Recipe):
        name, values = source.name, yaml.safe_load(to_yaml(source))
    else:
        name, values = str(source), _merged_file(find(str(source), Path()), ())
    for override in overrides:
        layer = parse_override(override)
        _check_layer(layer)
        values = _merge(values, layer)
    with blaming(f"recipe {name}"):
        return from_dict(values)


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """A checked recipe from plain values, keys left out taking their defaults.

    Where teacher.weights is set, stages that train the teacher are dropped: one override replaces them.
    Raises UsageError with the key's path for unknown keys, wrong types, and combinations that cannot work.
    """
    recipe: Recipe = build(Recipe, values)
    if recipe.teacher.weights is not None:
        kept = {name: stage for name, stage in recipe.stages.items() if stage.trains != "teacher"}
        recipe = dataclasses.replace(recipe, stages=kept)
    check(recipe)
    return recipe


def show(name: str | None = None) -> str:
    """The shipped recipes, a line each, or one recipe resolved: YAML with the documentation of every knob.

    A line holds name, description, and the cell of a published table that the recipe reproduces.
    """
    if name is not None:
        return to_yaml(load(name), docs=True)
    shipped = [load(name) for name in names()]
    width = max(len(recipe.name) for recipe in shipped)
    words = max(len(recipe.description) for recipe in shipped)
    lines = [f"{it.name:<{width}}  {it.description:<{words}}  {it.published or ''}" for it in shipped]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def find(name: str, folder: Path, shipped: Path = SHIPPED, what: str = "recipe") -> Path:
    """The file of a recipe (or `what` else): a path ending in .yaml or .yml, from the folder on, else a shipped name.

    Raises UsageError where there is none.
    """
    if name.endswith((".yaml", ".yml")):
        path = folder / expanded(name)
        if not path.is_file():
            raise UsageError(f"there is no {what} file {path}")
        return path
    if name not in names(shipped):
        raise UsageError(f"there is no {what} {name}{nearest(name, names(shipped))}")
    return shipped / f"{name}.yaml"


def _merged_file(path: Path, heirs: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a file over those that it inherits."""
    if len(heirs) > _MOST_ANCESTORS:
        raise UsageError(f"{path} is inherited by way of more than {_MOST_ANCESTORS} recipes")
    if path.resolve() in heirs:
        raise UsageError(f"{path} inherits from itself, by way of {heirs[-1].name}")
    values = read(path)
    parent = values.pop("inherits", None)
    with blaming(path):
        _check_layer(values)
        values.setdefault("name", _default_name(path))
        if parent is None:
            return values
        if not isinstance(parent, str):
            raise UsageError(f"inherits has to be the name of one recipe, not {parent}")
        ancestor = find(parent, path.parent)
    inherited = _merged_file(ancestor, (*heirs, path.resolve()))
    inherited.pop("description", None)
    with blaming(path):
        return _merge(inherited, values)


@contextlib.contextmanager
def blaming(source: str | Path) -> Iterator[None]:
    """Puts the file or recipe at fault before the message of a UsageError."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None


def _default_name(path: Path) -> str:
    """The recipe's name by its file: with the folder for a shipped one, so that voc/x and coco/x differ."""
    path = path.resolve().with_suffix("")
    return path.relative_to(SHIPPED).as_posix() if SHIPPED in path.parents else path.name


def read(path: Path, what: str = "recipe") -> dict[str, Any]:
    """The map in the YAML file of a recipe (or `what` else); UsageError where it is none, or has a key twice."""
    try:
        values = _parse(read_bytes(path, _LARGEST).decode())
    except (OSError, ValueError, UsageError) as error:
        raise UsageError(f"{path} is not a readable {what}: {_first_problem(error)}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not a {what}: its top has to be a map of keys")
    return values


def parse_override(override: str) -> dict[str, Any]:
    """'a.b=value' as nested maps."""
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"--set {override}: write KEY=VALUE, as in train.batch_size=16")
    try:
        value = _parse(text)
    except UsageError as error:
        raise UsageError(f"--set {override}: the value is not YAML: {error}") from None
    for key in reversed(path.strip().split(".")):
        value = {key: value}
    return value


def _first_problem(error: Exception) -> str:
    """What is wrong and in which line, on one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, OSError):
        return str(error.strerror)
    return str(error).splitlines()[0]


def _check_layer(values: Mapping[str, Any]) -> None:
    """Refuses unknown keys and wrong types in one file or override, where they can be told whose they are."""
    build(Recipe, values, partial=True)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Both maps, key by key, `above` winning; null takes a stage away."""
    merged = dict(below)
    for key, value in above.items():
        if path == "stages" and value is None:
            if key not in merged:
                raise UsageError(f"stages.{key}: there is no such stage to take away{nearest(key, merged)}")
            del merged[key]
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value, key)
        else:
            merged[key] = value
    return merged
