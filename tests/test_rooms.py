"""The rooms of the package: what each may import, and how large a file may grow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "gan_kd"
# From the lowest to the highest: a room imports from those before it and from itself.
ORDER = (
    ("errors", "compat", "__init__"),
    ("system",),
    ("recipe",),
    ("distributed",),
    ("gluon",),
    ("data",),
    ("detectors",),
    ("distill",),
    ("evaluation",),
    ("report",),
    ("training",),
    ("detection", "export"),
    ("study",),
    ("commands",),
    ("api",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
MOST_LINES = 330
MOST_LOOSE = 5


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def module(path: Path) -> str:
    parts = ["gan_kd", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, top: bool = False) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere or, with `top`, when it is imported itself."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes: list[ast.AST] = list(tree.body) if top else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "gan_kd")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gan_kd":
            assert node.module
            for alias in node.names:
                submodule = PACKAGE.joinpath(*node.module.split(".")[1:], alias.name)
                is_module = submodule.is_dir() or submodule.with_suffix(".py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def test_few_files_lie_loose() -> None:
    loose = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= MOST_LOOSE, loose


def test_every_room_has_its_place() -> None:
    assert {room(path) for path in files()} <= set(LEVEL)


def test_no_file_is_long() -> None:
    lines = {module(path): len(path.read_text("utf-8").splitlines()) for path in files()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_no_room_imports_from_a_higher_one() -> None:
    wrong = []
    for path in files():
        for name in imported(path):
            other = (name.split(".") + ["__init__"])[1]
            if LEVEL[other] > LEVEL[room(path)]:
                wrong.append(f"{module(path)} imports {name}")
    assert wrong == []


def test_nothing_imports_in_a_circle() -> None:
    graph = {module(path): set(imported(path, top=True)) for path in files()}
    state: dict[str, str] = {}

    def visit(name: str, trail: list[str]) -> None:
        assert state.get(name) != "open", " -> ".join([*trail, name])
        if name in graph and name not in state:
            state[name] = "open"
            for other in sorted(graph[name] - {name}):
                visit(other, [*trail, name])
            state[name] = "done"

    for name in graph:
        visit(name, [])


def test_instruments_stay_outside() -> None:
    assert not [name for path in files() for name in imported(path) if name.startswith("scripts")]
