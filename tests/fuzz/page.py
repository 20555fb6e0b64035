"""results/robustness.md: what becomes of the suite's files here, and what the bare parsers make of the same bytes.

python -m tests.fuzz.page
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gan_kd.system.machine import machine
from gan_kd.system.version import commit
from tests.fuzz.child import BARE_MOST, SEED
from tests.fuzz.harness import LIMIT, ROOT, Outcome, work_through
from tests.fuzz.kinds import KINDS

PAGE = ROOT / "results" / "robustness.md"
#: Seconds and gigabytes from which a case of a bare parser is told.
SLOW, LARGE = 30.0, 1.0

CHANGED = """\
- **.params, checkpoints**: `gan_kd/gluon/params_file.py` reads the headers and holds each size against what is left of
  the file before MXNet sees it. Sparse arrays, unknown types and devices, axes or sides that cannot be, names twice or
  not printable, and bytes behind the end are refused. No pickle is read anywhere: optimiser states are arrays.
- **JSON**: files are regular and of a bounded size, nesting is bounded, and what is used is checked for its type.
- **XML**: a document type is refused, and with it entities; 10 MB and 10,000 objects an annotation.
- **Names in annotations**: absolute paths, `..` and unprintable characters are refused. Links in the data root are
  followed: who made them there wanted the files behind them.
- **Images**: JPEG, PNG, BMP and WebP of at most 100 million pixels by their header; where Pillow and OpenCV could
  differ (all but a JPEG without EXIF), the check compares what both read.
- **Recipes, studies**: 200 kB, 100,000 values with aliases written out, no alias within its own anchor, numbers of 64
  bits, 30 ancestors.
- **Messages** are of one printable line, whatever a file holds; class lists have 2,000 names at most.

The suite also found faults of this project, each now a case of it: thousands of objects nested in each other took
minutes; keys of a recipe were compared pair by pair; whole numbers beyond 1e308 in COCO boxes and in metrics.jsonl,
lists in the place of a COCO category, `2001-99-99` in a recipe, a best.json or environment.json of other types, and a
checkpoint of another run ended in a traceback; a file name with a line break broke the message in two; a pipe in the
place of a file was waited for.
"""


def main() -> None:
    """Work through every kind twice and write the page."""
    rows, findings = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in KINDS.items():
            ours = work_through(name, Path(folder) / name)
            bare = work_through(name, Path(folder) / f"{name}-bare", guarded=False, limit=SLOW)
            rows.append((kind.files, kind.parser, ours, bare))
            findings += _findings(kind.parser, ours, bare)
            print(name, Counter(it.outcome for it in ours), "bare:", Counter(it.outcome for it in bare), flush=True)
    PAGE.write_text(_page(rows, findings))


def _page(rows: Sequence[tuple[str, str, list[Outcome], list[Outcome]]], findings: Sequence[str]) -> str:
    every = [it for _, _, ours, _ in rows for it in ours]
    lines = [
        "# Files from strangers",
        "",
        f"**{len(every):,} damaged files: {_count(every, 'crash')} crashes, {_count(every, 'hang')} hangs, "
        f"{_count(every, 'fault')} tracebacks.** Each was read, the damage being harmless, or refused in one sentence, "
        "and no file was left behind.",
        "",
        "Sound files, made here and real ones, contents made to hurt, and bytes flipped, cut, spliced, replaced, "
        f"repeated and left out (seed `{SEED}`, {LIMIT:.0f} s and 1 GB of memory for a case). "
        "`tests/fuzz/test_values.py` adds 600 drawn recipes, studies, overrides and names of files.",
        "",
        "| files | cases | read | refused | tracebacks | crashes | hangs | peak, GB |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for files, _, ours, _ in rows:
        counts = [_count(ours, what) for what in ("accepted", "refused", "fault", "crash", "hang")]
        lines.append(f"| {files} | {len(ours)} | {' | '.join(map(str, counts))} | {max(_sizes(ours)):.2f} |")
    lines += [
        "",
        "Peak: resident memory of the process, MXNet included where it is loaded.",
        "",
        "## Findings",
        "",
        f"The same bytes given to the bare parser, with {BARE_MOST >> 30} GB of memory. What a parser keeps of one "
        "case counts in the next ones, too.",
        "",
        f"| files | parser | crashes | over {SLOW:.0f} s | over {LARGE:g} GB | peak, GB | read, but refused here |",
        "| :-- | :-- | --: | --: | --: | --: | --: |",
    ]
    for files, parser, ours, bare in rows:
        large = sum(size > LARGE for size in _sizes(bare))
        silent = sum(b.outcome == "accepted" and o.outcome == "refused" for o, b in zip(ours, bare))
        figures = f"{_count(bare, 'crash')} | {_count(bare, 'hang')} | {large} | {max(_sizes(bare)):.2f} | {silent}"
        lines.append(f"| {files} | {parser} | {figures} |")
    lines += ["", "The worst of them:", "", *findings, "", "## What was changed", "", CHANGED]
    found = machine()
    lines.append(
        f"Command `python -m tests.fuzz.page`, commit {commit()}, {found['cpu']}, Python {found['python']}, "
        f"MXNet {found['mxnet']}."
    )
    return "\n".join(lines) + "\n"


def _findings(parser: str, ours: Sequence[Outcome], bare: Sequence[Outcome]) -> list[str]:
    """Lines of the five worst cases of a bare parser, each beside what is said of it here."""
    bad = [(b, o) for o, b in zip(ours, bare) if b.outcome in ("crash", "hang") or b.gigabytes > LARGE]
    bad.sort(key=lambda pair: (pair[0].outcome == "crash", pair[0].outcome == "hang", pair[0].gigabytes), reverse=True)
    lines = []
    for theirs, mine in bad[:5]:
        happened = {
            "crash": f"the process ends ({theirs.said.split(':')[0]})",
            "hang": f"no end within {SLOW:.0f} s",
        }.get(theirs.outcome, f"{theirs.gigabytes:.1f} GB")
        case = theirs.case.split(": ", 1)[1]
        lines.append(f"- {parser}, `{case}`: {happened}; here {mine.outcome}")
    return lines


def _count(outcomes: Sequence[Outcome], what: str) -> int:
    return sum(it.outcome == what for it in outcomes)


def _sizes(outcomes: Sequence[Outcome]) -> list[float]:
    return [it.gigabytes for it in outcomes]


if __name__ == "__main__":
    main()
