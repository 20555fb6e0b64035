"""A process that works through the cases of a kind and prints what becomes of each, so that a crash names its case.

python -m tests.fuzz.child KIND FOLDER FIRST guarded|bare: one JSON line before each case and one after it.
"""

from __future__ import annotations

import json
import resource
import sys
import warnings
from pathlib import Path

from gan_kd.errors import UserError
from tests.fuzz.damage import damaged
from tests.fuzz.kinds import KINDS, Site

SEED = "gan-kd"
#: Bytes that a case may take beyond what the process has before it.
MOST = 1 << 30


def main(kind: str, folder: Path, first: int, guarded: bool) -> None:
    """Run the cases from number `first` on; with `guarded` under a limit on memory."""
    warnings.simplefilter("ignore")
    site = KINDS[kind].make(folder)
    for number, (what, file, content) in enumerate(cases(kind, site)):
        if number < first:
            continue
        say(case=number, what=what, file=file.name)
        sound = file.read_bytes()
        file.write_bytes(content)
        before = listing(folder)
        _restart_peak()
        outcome, said = (_guarded if guarded else _bare)(site, file)
        if listing(folder) != before:
            outcome, said = "fault", f"files changed: {sorted(listing(folder) ^ before)}"
        say(outcome=outcome, said=said[:300], gigabytes=_gigabytes("VmHWM"))
        file.write_bytes(sound)


def cases(kind: str, site: Site) -> list[tuple[str, Path, bytes]]:
    """What is wrong, with which file of the site, and its content: nothing, made to hurt, then damaged by chance."""
    file = site.sound[0][0]
    made = [("sound", *it) for it in site.sound] + [(what, file, content) for what, content in site.hurtful.items()]
    drawn = damaged([content for _, content in site.sound], KINDS[kind].cases - len(made), f"{SEED} {kind}")
    return made + [(what, site.sound[which][0], content) for which, what, content in drawn]


def say(**values: object) -> None:
    """A line for the parent."""
    print(json.dumps(values), flush=True)


def listing(folder: Path) -> set[tuple[str, int]]:
    """Every file below a folder, with its size."""
    return {(str(path), path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def _guarded(site: Site, file: Path) -> tuple[str, str]:
    """Our way in: a UserError of one printable line, or a result."""
    most = int(_gigabytes("VmSize") * 1e9) + MOST
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    try:
        site.guarded(file)
    except UserError as error:
        said = str(error)
        return ("refused" if said.isprintable() and len(said) > 20 else "fault"), said
    except BaseException as error:  # whatever it is, it would have been a traceback
        return "fault", f"{type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "accepted", ""


def _bare(site: Site, file: Path) -> tuple[str, str]:
    """The parser by itself."""
    try:
        site.bare(file)
    except Exception as error:
        return "refused", f"{type(error).__name__}: {error}"
    return "accepted", ""


def _restart_peak() -> None:
    """Have the kernel measure the peak of resident memory from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def _gigabytes(key: str) -> float:
    """A size of this process in GB, by its name in /proc: VmHWM is the peak of resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith(key))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "guarded")
