"""The folder of a run: who may write there, and what a reader needs to know of how it was made."""

from __future__ import annotations

import contextlib
import fcntl
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gan_kd import __version__
from gan_kd.distributed.cluster import here
from gan_kd.errors import RunError, UsageError
from gan_kd.recipe import Recipe, changes, load, to_yaml
from gan_kd.system.files import make_folder, remove_unfinished, write_file, write_json
from gan_kd.system.machine import machine
from gan_kd.system.untrusted import read_json
from gan_kd.system.version import commit

RECIPE, ENVIRONMENT = "recipe.yaml", "environment.json"


def opened(
    folder: Path, recipe: Recipe, resume: bool, warmups: Mapping[str, int]
) -> contextlib.AbstractContextManager[Any]:
    """The run's folder, which the first worker prepares and locks, as of `open_folder`, and the others only read."""
    if here().first:
        return open_folder(folder, recipe, resume, warmups)
    here().require_visible(folder / RECIPE)
    return contextlib.nullcontext()


def open_folder(folder: Path, recipe: Recipe, resume: bool, warmups: Mapping[str, int]) -> BinaryIO:
    """Prepare a run's folder and lock it; the lock is held as long as the returned file is open.

    warmups: epochs of the user's own distillers by dotted name, which `status` does not import.

    UsageError: a new run where one is already; a resumed run where there is none, or one of another recipe, or one
    that another process is still writing.
    """
    written = folder / RECIPE
    if resume:
        _require_same_recipe(written, recipe)
    elif written.exists():
        raise UsageError(
            f"{folder} already holds a run: add --resume to go on with it, or choose another --seed or --save-prefix"
        )
    try:
        make_folder(folder)
        lock = open(folder / ".lock", "wb")  # noqa: SIM115  (open as long as the run)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; choose another --save-prefix") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise UsageError(f"another process is training into {folder}; wait for it, or choose another --seed") from error
    remove_unfinished(folder)
    if not resume:
        write_file(written, lambda target: target.write_text(to_yaml(recipe), encoding="utf-8"))
    _note_environment(folder / ENVIRONMENT, warmups)
    return lock


def _require_same_recipe(written: Path, recipe: Recipe) -> None:
    if not written.is_file():
        raise UsageError(f"nothing to resume: {written.parent} holds no {RECIPE}; start the run without --resume")
    changed = changes(load(str(written)), recipe)
    if changed:
        raise UsageError(
            f"{written.parent} was started with another recipe (now {'; '.join(changed[:3])}): "
            "resume with the settings it was started with, or start a new run with another --save-prefix"
        )


def _command() -> str:
    """The command of this process: ours, or the name of the script that called the package."""
    script, module = Path(sys.argv[0]).name, getattr(sys.modules["__main__"].__spec__, "name", "")
    ours = script == "gan-kd" or module == "gan_kd.__main__"
    return shlex.join(["python", *(["-m", "gan_kd"] if ours else [script]), *sys.argv[1:]])


def _note_environment(path: Path, warmups: Mapping[str, int]) -> None:
    """Add this start of the run to those before it: entry k of `commands` ran the code of entry k of `commits`."""
    try:
        before = read_json(path) if path.exists() else {"commands": [], "commits": []}
        starts = {key: [*before[key]] for key in ("commands", "commits")}
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{path} is damaged; move it away, the run goes on without it") from None
    noted = {
        "commands": [*starts["commands"], _command()],
        "commits": [*starts["commits"], commit()],
        "version": __version__,
        "machine": machine(),
        "workers": here().size,
        **({"warmup_epochs": dict(warmups)} if warmups else {}),
    }
    write_json(path, noted)
