"""A run folder as it is read for a report: complete, still in progress, or damaged at its end.

Nothing here needs the run to be finished: what is absent or not finite is None, and what cannot be read is
named in `Run.problems`, so that the page can say so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gan_kd.errors import UsageError
from gan_kd.recipe.load import from_dict, read
from gan_kd.recipe.words import method_in_words, network_in_words
from gan_kd.system.untrusted import parse_json, read_bytes, read_json

_LARGEST = 500_000_000  # bytes of a JSON file of a run
NETWORKS = ("teacher", "baseline", "control", "distilled")


def number(value: Any) -> float | None:
    """`value` as a float, None where it is absent or not finite (an mAP of NaN was not measured)."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    with contextlib.suppress(OverflowError):  # a whole number beyond 1e308
        if math.isfinite(value):
            return float(value)
    return None


def _numbers(found: Any) -> dict[str, float]:
    """What of a map by name is a finite number; {} for anything that is no map."""
    values = {name: number(value) for name, value in found.items()} if isinstance(found, dict) else {}
    return {name: value for name, value in values.items() if value is not None}


@dataclass
class Network:
    """A network of a run. `trains`, `evals`, `diagnoses`: lines of metrics.jsonl; `best`, `eval`: its files or {}.

    `name` is that of files; `head`: the recipe's distill.head.
    """

    name: str
    planned: bool
    trains: list[dict[str, Any]]
    evals: list[dict[str, Any]]
    best: dict[str, Any]
    eval: dict[str, Any]
    diagnoses: list[dict[str, Any]] = field(default_factory=list)
    head: str = "inherit"

    @property
    def title(self) -> str:
        """What pages call it."""
        return network_in_words(self.name, self.head)

    @property
    def final_map(self) -> float | None:
        """mAP in percent of the best parameters, of the final evaluation; None before it."""
        return number(self.eval.get("map"))

    @property
    def map(self) -> float | None:
        """Best mAP in percent: of the final evaluation, else the best one of the training log."""
        logged = [number(record.get("map")) for record in self.evals]
        return self.final_map if self.final_map is not None else max((m for m in logged if m is not None), default=None)

    @property
    def last_map(self) -> float | None:
        """mAP in percent after the last epoch."""
        final = number(self.eval.get("last_map"))
        return final if final is not None or not self.evals else number(self.evals[-1].get("map"))

    @property
    def also_last(self) -> dict[str, float]:
        """Measures in percent after the last epoch (voc07, voc10, ap, ap75); {} where they were not counted."""
        return _numbers(self.eval.get("also_last"))

    @property
    def summary(self) -> dict[str, float]:
        """COCO's numbers in percent of the final evaluation (AP, AP50, AP75, ...); {} by other metrics."""
        return _numbers(self.eval.get("summary"))

    @property
    def ap(self) -> dict[str, float]:
        """AP in percent by class: of the final evaluation, else of the best epoch of the training log."""
        best = max(self.evals, key=lambda record: number(record.get("map")) or -1.0, default={})
        source = self.eval or best
        values = {name: number(value) for name, value in (source.get("ap") or {}).items()}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def shown(self) -> bool:
        """Whether the recipe trains it or the folder holds anything of it."""
        return self.planned or bool(self.trains or self.evals or self.best or self.eval)

    @property
    def status(self) -> str:
        """One phrase for the page: how far this network is, and what its mAP therefore is."""
        if self.final_map is not None:
            return "evaluated"
        if self.map is not None:
            return "not evaluated on its own yet; mAP from the training log"
        if self.trains:
            return "in training, no evaluation yet"
        return "not run here yet" if self.planned else "not run here: the recipe does not train it"


@dataclass
class Run:
    """One run folder. `recipe`: the mapping in recipe.yaml; `environment`: environment.json or {}."""

    folder: Path
    recipe: dict[str, Any]
    environment: dict[str, Any]
    networks: dict[str, Network]
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.recipe["name"])

    @property
    def seed(self) -> int:
        return int(self.recipe["train"]["seed"])

    @property
    def method(self) -> str:
        """How the student was distilled: its head and its distillers, as in 'own head, outputs'."""
        return method_in_words(self.recipe)

    @property
    def finished(self) -> bool:
        """Whether every network that the recipe trains was evaluated: the last that a run does before its report."""
        return all(self.networks[stage["trains"]].eval for stage in self.recipe["stages"].values())

    @property
    def commands(self) -> list[str]:
        """Every command that started or resumed the run, a remark where none was recorded."""
        return list(self.environment.get("commands") or ["# the command was not recorded"])

    @property
    def difference(self) -> float | None:
        """mAP of distilled - baseline in percentage points, best epochs."""
        return minus(self.networks["distilled"].map, self.networks["baseline"].map)

    @property
    def last_difference(self) -> float | None:
        """mAP of distilled - baseline in percentage points, last epochs."""
        return minus(self.networks["distilled"].last_map, self.networks["baseline"].last_map)

    @property
    def lead(self) -> float | None:
        """mAP of teacher - baseline in percentage points, best epochs."""
        return minus(self.networks["teacher"].map, self.networks["baseline"].map)

    @property
    def gap_closed(self) -> float | None:
        """Part of the teacher's lead over the baseline that the student gained, %; None where that is not a point."""
        if self.difference is None or self.lead is None or self.lead < 1:
            return None
        return 100 * self.difference / self.lead

    def first(self, key: str) -> Any:
        """`key` of the first eval.json or best.json that has it, distilled first; None if none has."""
        for name in reversed(NETWORKS):
            for part in (self.networks[name].eval, self.networks[name].best):
                if part.get(key) is not None:
                    return part[key]
        return None


def minus(one: float | None, other: float | None) -> float | None:
    """one - other, None where one of them is not known."""
    return None if one is None or other is None else one - other


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises UsageError where it is none: no recipe.yaml, or one that is not a recipe."""
    source = folder / "recipe.yaml"
    if not source.is_file():
        raise UsageError(f"{folder} is not a run folder: no recipe.yaml; name a folder like runs/RECIPE/SEED")
    try:
        recipe = dataclasses.asdict(from_dict(read(source)))
    except UsageError as error:
        advice = "copy it back from where the run was made"
        raise UsageError(f"{source} is not the recipe of a run; {advice} ({error})") from None
    problems: list[str] = []
    records = _records(folder / "metrics.jsonl", problems)
    planned = {stage["trains"] for stage in recipe["stages"].values()}
    if recipe["teacher"].get("weights") and planned & {"control", "distilled"}:
        planned.add("teacher")
    networks = {}
    for name in NETWORKS:
        own = [record for record in records if record.get("trains") == name]
        networks[name] = Network(
            name,
            name in planned,
            [record for record in own if record.get("kind") == "train"],
            [record for record in own if record.get("kind") == "eval"],
            _json(folder / name / "best.json", problems),
            _json(folder / name / "eval.json", problems),
            [record for record in own if record.get("kind") == "diagnosis"],
            recipe["distill"]["head"],
        )
    return Run(folder, recipe, _environment(folder / "environment.json", problems), networks, problems)


def find_runs(paths: Iterable[Path], exclude: Path | None = None) -> list[Path]:
    """Run folders at or below `paths`, not below `exclude`, sorted. UsageError where a path has none.

    A report's copies of a run's files are none, but where a path itself names them.
    """
    found: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder; name one like runs/RECIPE/SEED, or a folder of runs")
        below = {source.parent for source in path.rglob("recipe.yaml")}
        below = {run for run in below if run == path or not is_copy(run)}
        if exclude is not None:
            below = {run for run in below if exclude.resolve() not in (run.resolve(), *run.resolve().parents)}
        if not below:
            raise UsageError(f"{path} holds no run: no recipe.yaml in it or below; name a folder of runs")
        found |= below
    return sorted(found)


def is_copy(folder: Path) -> bool:
    """Whether a report put the files there (`report --out`): the log, but nothing that only a run has."""
    own = (".lock", "checkpoints", *(f"{name}/{part}.json" for name in NETWORKS for part in ("best", "eval")))
    return (folder / "train.log").is_file() and not any((folder / name).exists() for name in own)


def leaves(values: Any, path: str = "") -> list[tuple[str, str]]:
    """(dotted key, text) of every value in nested mappings."""
    if not isinstance(values, dict):
        return [(path, str(values))]
    prefix = f"{path}." if path else ""
    return [leaf for key, value in values.items() for leaf in leaves(value, f"{prefix}{key}")]


def _environment(path: Path, problems: list[str]) -> dict[str, Any]:
    """environment.json: `commands` and `commits` of every start of the run, and what else it noted.

    The first runs noted a list, one entry a start; their results are published, so that they are still read.
    """
    value = _json(path, problems, (dict, list))
    try:
        if isinstance(value, list):
            commands, commits = ([str(start[key]) for start in value] for key in ("command", "commit"))
            return {"commands": commands, "commits": commits, "machine": dict(value[-1]["machine"]) if value else {}}
        texts = {key: [str(text) for text in value[key]] for key in ("commands", "commits") if key in value}
        return {**value, **texts, "machine": dict(value.get("machine", {}))}
    except (KeyError, TypeError, ValueError):
        problems.append(f"{path.name} could not be read and is left out")
        return {}


def _json(path: Path, problems: list[str], kinds: tuple[type, ...] = (dict,)) -> Any:
    """JSON of one of `kinds`; {} where `path` is absent, or holds none of them (noted in `problems`)."""
    try:
        value = read_json(path, _LARGEST)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        value = None
    if not isinstance(value, kinds):
        problems.append(f"{path.parent.name}/{path.name} could not be read and is left out")
        return {}
    return value


def _records(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl. One cut short at the end is normal while a run writes; others are noted."""
    if not path.is_file():
        problems.append("metrics.jsonl is not there: nothing was trained yet, or the file was removed")
        return []
    try:
        lines = read_bytes(path, _LARGEST).decode("utf-8", errors="replace").split("\n")
    except (OSError, ValueError) as error:
        problems.append(f"metrics.jsonl could not be read and is left out ({error})")
        return []
    records, broken = [], 0
    for index, line in enumerate(lines):
        try:
            record = parse_json(line) if line.strip() else None
        except ValueError:
            broken += index < len(lines) - 1
            continue
        if isinstance(record, dict) and _is_typed(record):
            records.append(record)
        else:
            broken += record is not None
    if broken:
        problems.append(f"metrics.jsonl: {broken} unreadable line(s) left out")
    return records


def _is_typed(record: dict[str, Any]) -> bool:
    """Whether the values of a line of metrics.jsonl are of the types that the report counts on."""
    kinds = {
        str: ("kind", "stage", "trains"),
        int: ("epoch", "step", "batch"),
        dict: ("losses", "ap"),
        list: ("maps", "places"),
    }
    return all(isinstance(record.get(key, kind()), kind) for kind, keys in kinds.items() for key in keys)
