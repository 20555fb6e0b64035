"""Recipes, studies, and the files of a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from gan_kd.recipe import load, to_yaml
from gan_kd.recipe.load import SHIPPED
from gan_kd.report.run import read_run
from gan_kd.study.load import SHIPPED as STUDIES
from gan_kd.study.load import load as load_study
from tests.fuzz.site import Site, written

# Ten within ten, nine times over: a few hundred bytes that stand for a billion values.
_LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
_VALUES = {
    "a month of 99": "2001-99-99",
    "an empty whole number": "!!int ''",
    "a truth value of another kind": "!!bool maybe",
    "a number that is none": "!!float x",
    "an object of Python": "!!python/object/apply:os.system [ls]",
    "bytes": "!!binary =x",
    "a set": "!!set {a, b}",
    "a number of 9,999 digits": "9" * 9999,
    "a number too long to print": "0x" + "f" * 9999,
    "numbers of base 60": ":".join(["59"] * 2000),
    "NaN": ".nan",
    "infinity": "-.inf",
    "1e999": "1e999",
    "itself": "&a [*a]",
    "itself as a map": "&a {<<: *a}",
    "an alias of nothing": "*nothing",
    "a list as key": "{[1]: 2}",
    "null": "null",
    "text over two lines": '"a\\nb"',
    "an escape": '"\\e[2J"',
    "half a character": '"\\ud800"',
    "a million letters": "x" * 1_000_000,
}


def recipes(folder: Path) -> Site:
    """Shipped ones, short and resolved, that other recipes inherit from."""
    names = ("demo", "mini/mobilenet0.25-mobilenet1.0", "coco/base")
    contents = [(SHIPPED / f"{name}.yaml").read_bytes() for name in names] + [to_yaml(load("demo")).encode()]
    sound = [written(folder, ("mine.yaml", content))[0] for content in contents]
    for number in range(60):
        written(folder, (f"heir{number}.yaml", f"inherits: heir{number + 1}.yaml\n".encode()))
    hurtful = {
        f"{what} for {key}": f"inherits: demo\n{key.replace('.', ': {')}: {value}{'}' * key.count('.')}\n".encode()
        for what, value in _VALUES.items()
        for key in ("name", "train.batch_size", "data.classes", "stages", "inherits", "nonsense")
    }
    hurtful |= {
        "aliases within aliases": _LAUGHS.encode(),
        "aliases within aliases as classes": (_LAUGHS + "data: {classes: *a9}\n").encode(),
        "50,000 keys": "".join(f"k{i}: 1\n" for i in range(16_000)).encode(),
        "nested 5,000 deep": b"data: " + b"[" * 5000,
        "itself as ancestor": b"inherits: mine.yaml\n",
        "60 ancestors": b"inherits: heir0.yaml\n",
        "not UTF-8": b"name: \xff\xfe\n",
        "nothing in it": b"",
        "a name that leads elsewhere": b"inherits: demo\nname: ../../x\n",
    }
    return Site(sound, lambda path: to_yaml(load(path)), _bare, hurtful)


def studies(folder: Path) -> Site:
    """The shipped ones."""
    contents = [path.read_bytes() for path in sorted(STUDIES.glob("*.yaml"))]
    sound = [written(folder, ("mine.yaml", content))[0] for content in contents]
    hurtful = {
        f"{what} for {key}": contents[0] + f"{key}: {value}\n".encode()
        for what, value in list(_VALUES.items())[:12]
        for key in ("nonsense", "control")
    }
    hurtful["aliases within aliases"] = _LAUGHS.encode()
    return Site(sound, lambda path: load_study(str(path)), _bare, hurtful)


def runs(folder: Path) -> Site:
    """A run folder as a report reads it."""
    train = {"kind": "train", "stage": "plain", "trains": "baseline", "epoch": 1, "batch": 2, "step": 2, "lr": 0.01,
             "losses": {"conf": 3.5, "loc": 1.0}}  # fmt: skip
    measured = {**train, "kind": "eval", "map": 41.5, "ap": {"cat": 41.5}}
    lines = "".join(json.dumps(record) + "\n" for record in (train, measured) * 3).encode()
    environment = {"commands": ["python -m gan_kd train"], "commits": ["0" * 12], "machine": {"cpu": "some"}}
    sound = written(
        folder,
        ("metrics.jsonl", lines),
        ("environment.json", json.dumps(environment).encode()),
        ("baseline/eval.json", json.dumps({"map": 42.0, "last_map": 41.5, "ap": {"cat": 42.0}}).encode()),
        ("baseline/best.json", json.dumps({"map": 42.0, "epoch": 1}).encode()),
        ("recipe.yaml", to_yaml(load("demo")).encode()),
    )
    values: tuple[Any, ...] = (None, 7, "x", [], [[1]], {"a": {"b": []}}, 10**400, float("nan"))
    hurtful = {
        f"{key} {str(value)[:20]}": lines + json.dumps({**measured, key: value}).encode() + b"\n"
        for key in ("kind", "trains", "step", "map", "ap", "losses")
        for value in values
    }
    hurtful |= {"nested deeply": b"[" * 100_000 + b"\n" + lines, "a number of 9,999 digits": b"9" * 9999 + b"\n"}

    def read(_: Path) -> None:
        run = read_run(folder)
        assert all(problem.isprintable() for problem in run.problems)
        used: list[Any] = [run.name, run.seed, run.finished, run.commands, run.difference, run.first("epoch")]
        for network in run.networks.values():
            used += [network.map, network.last_map, network.ap, network.also_last, network.status]

    return Site(sound, read, lambda path: [json.loads(line) for line in path.read_text().splitlines()], hurtful)


def _bare(path: Path) -> object:
    """PyYAML, and a look at each of the values: aliases take memory only then."""
    return json.dumps(yaml.safe_load(path.read_text()), default=str)
