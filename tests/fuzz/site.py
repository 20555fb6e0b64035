"""What a case works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"  # real files, where they are beside the project


@dataclass
class Site:
    """A folder with the files of a kind.

    sound: files with a sound content each, which cases damage. hurtful: contents made to hurt, by what is wrong, for
    the first of the files. guarded: our way to read a file; UserError where it is refused. bare: the parser's.
    """

    sound: list[tuple[Path, bytes]]
    guarded: Callable[[Path], object]
    bare: Callable[[Path], object]
    hurtful: dict[str, bytes] = field(default_factory=dict)


def written(folder: Path, *contents: tuple[str, bytes]) -> list[tuple[Path, bytes]]:
    """Files of these names and contents in a folder."""
    for name, content in contents:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [(folder / name, content) for name, content in contents]
