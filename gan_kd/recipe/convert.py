"""Between plain YAML values and the typed recipe; refusals name the key's path and the nearest right name."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

import yaml

from gan_kd.errors import UsageError
from gan_kd.recipe import methods
from gan_kd.recipe.schema import Recipe

_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_COMMENT_COLUMN = 40


def nearest(wrong: str, right: Iterable[str]) -> str:
    """' (did you mean X?)' for the closest of the right names, else ' (one of: ...)', twenty at most, or nothing."""
    names = list(right)
    close = difflib.get_close_matches(wrong, names, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    more = ", ..." if len(names) > 20 else ""
    return f" (one of: {', '.join(names[:20])}{more})" if names else ""


def build(
    cls: type, raw: Any, path: str = "", default: Any = None, *, partial: bool = False, top: type = Recipe
) -> Any:
    """The dataclass `cls` from a map of plain values; keys left out come from `default`, else from the class.

    `path` is the map's place in the file ("stages.finetune"), `top` the dataclass of the whole file. With
    `partial`, required keys may be missing and a stage may be null: so one layer of an inheriting recipe is
    checked by itself, and the result is good for nothing else. Raises UsageError with the key's path.
    """
    knobs = {knob.name: knob for knob in dataclasses.fields(cls)}
    values = {name: _default(knob, default) for name, knob in knobs.items()}
    for key, value in _mapping(raw, path, top).items():
        if key not in knobs:
            raise UsageError(f"{_join(path, key)} is not a {_word(top)} key{_nearest_key(path, key, knobs, top)}")
        values[key] = _convert(knobs[key], value, _join(path, key), values[key], partial, top)
    for name, value in values.items():
        if value is dataclasses.MISSING and not partial:
            raise UsageError(f"{_join(path, name)} is missing: {knobs[name].metadata['doc']}")
    return cls(**values)


def to_yaml(recipe: Recipe, docs: bool = False) -> str:
    """The whole recipe as YAML that load() reads back equal; with `docs`, each knob has its explanation."""
    return "\n".join(_lines(recipe, None, 0, docs, set())) + "\n"


def recipe_hash(recipe: Recipe) -> str:
    """sha256 (hex) of all that influences parameters and mAP, in canonical JSON.

    Left out: name, description, published, data.root, eval.batch_size, of train the loader's workers, log_interval,
    keep and tensorboard, and train.contexts, whose number tells only in BatchNorm's statistics, taken by device.
    So data may move, and a run may go on with other devices. Files (init, weights, classes) count by their
    path, not content.
    """
    return hashlib.sha256(json.dumps(hashed(recipe, older=True), sort_keys=True).encode()).hexdigest()


def uncounted(cls: type = Recipe, path: str = "") -> list[str]:
    """Dotted keys of a recipe that `recipe_hash` leaves out; that of a part stands for every key below it."""
    keys = []
    for knob in dataclasses.fields(cls):
        place, kind = _join(path, knob.name), _types(knob, Recipe)[0]
        if knob.metadata["in_hash"] is False:
            keys.append(place)
        elif dataclasses.is_dataclass(kind):
            keys += uncounted(kind, place)  # type: ignore[arg-type]
    return keys


def changes(before: Recipe, now: Recipe) -> list[str]:
    """Lines of `now` as YAML that `before` has not; at least one text where the recipes' hashes differ."""
    if recipe_hash(before) == recipe_hash(now):
        return []
    old, new = to_yaml(before).splitlines(), to_yaml(now).splitlines()
    return [line.strip() for line in new if line not in old] or ["a key was removed"]


def _word(top: type) -> str:
    """What a message calls the file: recipe or study."""
    return top.__name__.lower()


def _mapping(raw: Any, path: str, top: type) -> Mapping[str, Any]:
    """`raw` itself, where it is a mapping with text keys."""
    if not isinstance(raw, Mapping):
        raise UsageError(f"{path or f'a {_word(top)}'} has to be a map of keys, not {_show(raw)}")
    for key in raw:
        if not isinstance(key, str):
            raise UsageError(f"{_join(path, _show(key))} is not a {_word(top)} key: keys are text (put it in quotes)")
    return raw


def _convert(knob: dataclasses.Field[Any], value: Any, path: str, default: Any, partial: bool, top: type) -> Any:
    """The value as one of the knob's types; `default` fills what a nested map leaves out."""
    kinds = _types(knob, top)
    if value is None and None in kinds:
        return None
    if isinstance(value, list) and list[str] in kinds:
        kinds = [list[str]]
    kind = kinds[0]
    if dataclasses.is_dataclass(kind):
        return build(kind, value, path, default, partial=partial, top=top)  # type: ignore[arg-type]
    if get_origin(kind) is dict:
        element = get_args(kind)[1]
        if element is dict:
            return {key: _arguments(item, _join(path, key), top) for key, item in _mapping(value, path, top).items()}
        if dataclasses.is_dataclass(element):
            return _stages(element, value, path, partial)  # type: ignore[arg-type]
        convert = _list if get_origin(element) is list else _scalar
        return {key: convert(element, item, _join(path, key), knob) for key, item in _mapping(value, path, top).items()}
    return _list(kind, value, path, knob) if get_origin(kind) is list else _scalar(kind, value, path, knob)


def _list(kind: Any, value: Any, path: str, knob: dataclasses.Field[Any]) -> list[Any]:
    """A list of texts, numbers or truth values."""
    element = get_args(kind)[0]
    if not isinstance(value, list):
        raise UsageError(f"{path} has to be a list, not {_show(value)} (write [{_show(value)}])")
    return [_scalar(element, item, f"{path}[{i}]", knob) for i, item in enumerate(value)]


def _stages(kind: type, raw: Any, path: str, partial: bool) -> dict[str, Any]:
    """Named stages; in one layer of a recipe, null is a stage taken away, and other layers hold the rest."""
    stages = {}
    for name, value in _mapping(raw, path, Recipe).items():
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise UsageError(f"{_join(path, name)}: a stage's name is of letters, digits and underscores")
        if value is None and partial:
            continue
        if not partial and isinstance(value, Mapping) and "trains" not in value:
            others = [other for other in raw if other != name]
            raise UsageError(f"{_join(path, name)} is no stage{nearest(name, others)}; a new stage says what it trains")
        stages[name] = build(kind, value, _join(path, name), partial=partial)
    return stages


def _arguments(raw: Any, path: str, top: type) -> dict[str, Any]:
    """Keyword arguments: names of Python with texts, numbers, truth values, null or lists of them."""
    arguments = dict(_mapping(raw, path, top))
    for name, value in arguments.items():
        plain = all(
            isinstance(v, (str, int, float, type(None))) for v in (value if isinstance(value, list) else [value])
        )
        if not plain or not name.isidentifier():
            raise UsageError(
                f"{_join(path, name)} has to be an argument's name with a text, a number or a list of them"
            )
    return arguments


def _scalar(kind: Any, value: Any, path: str, knob: dataclasses.Field[Any]) -> Any:
    """One text, number or truth value, checked against choices and bounds.

    YAML 1.1 reads 1e-3 as text (it wants 1.0e-3), which nobody expects: such text is taken as a number.
    """
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            value = float(value)
    if type(value) is not kind:
        quote = " (put it in quotes)" if kind is str and value is not None else ""
        raise UsageError(f"{path} has to be {_KINDS[kind]}, not {_show(value)}{quote}")
    choices = (*knob.metadata["choices"], *knob.metadata["aliases"])
    if choices and value not in choices:
        raise UsageError(f"{path} cannot be {_show(value)}{nearest(value, choices)}")
    if kind is str and not value.strip() and knob.default != "":
        raise UsageError(f"{path} is empty")
    if kind in (int, float):
        _check_bounds(value, path, knob.metadata["bounds"])
    return value


def _check_bounds(value: float, path: str, bounds: Mapping[str, float | None]) -> None:
    """UsageError for a number that is not finite or out of its knob's bounds."""
    words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    holds = {
        "least": lambda bound: value >= bound,
        "above": lambda bound: value > bound,
        "most": lambda bound: value <= bound,
        "below": lambda bound: value < bound,
    }
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    if not math.isfinite(value) or not all(holds[name](bound) for name, bound in given.items()):
        limits = " and ".join(f"{words[name]} {bound}" for name, bound in given.items()) or "finite"
        raise UsageError(f"{path} is {_show(value)}, but has to be {limits}")


def _types(knob: dataclasses.Field[Any], top: type) -> list[Any]:
    """The alternatives of a field's annotation; Python 3.9 cannot evaluate "str | None" as a whole."""
    known = {**vars(methods), **vars(sys.modules[top.__module__])}
    return [eval(part, known) for part in str(knob.type).split(" | ")]


def _default(knob: dataclasses.Field[Any], parent: Any) -> Any:
    """What `parent`, the default of the map around it, holds; without one the class's default or MISSING."""
    if parent is not None:
        return getattr(parent, knob.name)
    return knob.default if knob.default_factory is dataclasses.MISSING else knob.default_factory()


def _nearest_key(path: str, key: str, siblings: Iterable[str], top: type) -> str:
    """The path of the nearest sibling, else of a key of the same name elsewhere, else all siblings."""
    names = list(siblings)
    close = difflib.get_close_matches(key, names, n=1)
    if close:
        return f" (did you mean {_join(path, close[0])}?)"
    elsewhere = [place for place in _places(top, top) if place.rpartition(".")[2] == key]
    return f" (did you mean {elsewhere[0]}?)" if elsewhere else f" (one of: {', '.join(names)})"


def _places(cls: type, top: type, path: str = "") -> Iterator[str]:
    """Paths of all keys, a stage's name written NAME."""
    for knob in dataclasses.fields(cls):
        place, kind = _join(path, knob.name), _types(knob, top)[0]
        yield place
        if get_origin(kind) is dict:
            kind, place = get_args(kind)[1], f"{place}.NAME"
        if dataclasses.is_dataclass(kind):
            yield from _places(kind, top, place)  # type: ignore[arg-type]


def _lines(node: Any, default: Any, depth: int, docs: bool, seen: set[type]) -> Iterator[str]:
    """YAML lines of a dataclass; with docs, a class is explained where it comes first."""
    comment = docs and type(node) not in seen
    seen.add(type(node))
    indent = "  " * depth
    for knob in dataclasses.fields(node):
        value, usual = getattr(node, knob.name), _default(knob, default)
        if dataclasses.is_dataclass(value):
            known = type(value) in seen or not docs
            yield _with_comment(f"{indent}{knob.name}:", "" if known else str(type(value).__doc__))
            yield from _lines(value, usual, depth + 1, docs, seen)
        elif isinstance(value, dict) and value and all(map(dataclasses.is_dataclass, value.values())):
            yield _with_comment(f"{indent}{knob.name}:", knob.metadata["doc"] if comment else "")
            for name, stage in value.items():
                yield f"{indent}  {name}:"
                yield from _lines(stage, None, depth + 2, docs, seen)
        else:
            doc = knob.metadata["doc"]
            if usual not in (value, "", dataclasses.MISSING):
                doc += f" [default: {_plain(usual)}]"
            yield _with_comment(f"{indent}{knob.name}: {_plain(value)}", doc if comment else "")


def _with_comment(line: str, doc: str) -> str:
    return f"{line:<{_COMMENT_COLUMN}}  # {doc}" if doc else line


def hashed(node: Any, older: bool = False) -> Any:
    """Plain values of a recipe or a part of it without the knobs that change no number; stages as [name, values].

    older: choices that were renamed by their first words, as the hash counts them.
    """
    if isinstance(node, dict):
        return [[name, hashed(value, older)] for name, value in node.items()]
    if not dataclasses.is_dataclass(node):
        return node
    counts = {knob.name: knob.metadata["in_hash"] for knob in dataclasses.fields(node)}
    defaults = {knob.name: _default(knob, None) for knob in dataclasses.fields(node)}
    values = {name: getattr(node, name) for name, counted in counts.items() if counted is not False}
    counted = {name: value for name, value in values.items() if counts[name] or value != defaults[name]}
    if older:
        first = {knob.name: knob.metadata["hashed_as"] for knob in dataclasses.fields(node) if knob.name in counted}
        counted |= {name: words[counted[name]] for name, words in first.items() if words and counted[name] in words}
    return {name: hashed(value, older) for name, value in counted.items()}


def _plain(value: Any) -> str:
    """A value as YAML on one line."""
    style = '"' if isinstance(value, str) and "\n" in value else None
    text = yaml.safe_dump(value, default_style=style, default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.replace("\n...\n", "").strip()


def _show(value: Any) -> str:
    """A value as a message shows it: YAML, shortened."""
    text = _plain(value) if value is None or isinstance(value, (str, int, float, list, dict)) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
