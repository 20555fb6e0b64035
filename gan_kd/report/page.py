"""A page as a list of blocks, written twice: as Markdown beside its pictures, and as HTML that holds them."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple, Union
from urllib.parse import quote

# Okabe and Ito's colours, which stay apart for colour-blind readers and in grey print.
COLOURS = {"teacher": "#59636e", "baseline": "#0072b2", "control": "#009e73", "distilled": "#d55e00"}
TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Section:
    """A heading of the second level."""

    title: str

    def markdown(self) -> str:
        return f"## {self.title}"

    def html(self, folder: Path) -> str:
        return f"<h2>{escape(self.title)}</h2>"


@dataclass(frozen=True)
class Text:
    """A paragraph. `kind`: '' (plain), 'lead' (the finding), 'note' (small print) or 'warning'."""

    text: str
    kind: str = ""

    def markdown(self) -> str:
        text = _escape(self.text)
        return {"lead": f"**{text}**", "warning": f"> **Note:** {text}"}.get(self.kind, text)

    def html(self, folder: Path) -> str:
        return f'<p class="{self.kind}">{escape(self.text)}</p>'


@dataclass(frozen=True)
class Tiles:
    """Large numbers in a row: (label, value, colour). HTML only: Markdown has the numbers in its tables."""

    tiles: Sequence[tuple[str, str, str]]

    def markdown(self) -> str:
        return ""

    def html(self, folder: Path) -> str:
        tiles = (
            f'<div style="border-color:{colour}"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
            for label, value, colour in self.tiles
        )
        return f'<div class="tiles">{"".join(tiles)}</div>'


class Link(NamedTuple):
    """A file, by its address relative to the page. Markdown pages link each other's Markdown."""

    text: str
    address: str

    def markdown(self) -> str:
        return f"[{_escape(self.text)}]({quote(re.sub(r'[.]html$', '.md', self.address))})"

    def html(self) -> str:
        return f'<a href="{quote(self.address)}">{escape(self.text)}</a>'


Cell = Union[str, Link, Sequence[Union[str, Link]]]


@dataclass(frozen=True)
class Table:
    """A table. `align`: l or r for each column. `colours`: of a dot before the first cell, by its text.

    A cell is text, a link, or a list of both.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    align: str
    colours: dict[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        rule = [{"l": ":--", "r": "--:"}[side] for side in self.align]
        rows = [[self._cell(cell) for cell in row] for row in (self.head, *self.rows)]
        return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))

    def _cell(self, cell: Cell) -> str:
        parts = (part.markdown() if isinstance(part, Link) else _escape(part) for part in _parts(cell))
        return "".join(parts).replace("\n", "<br>")

    def html(self, folder: Path) -> str:
        lines = [self._line("th", self.head)]
        lines += [self._line("td", row) for row in self.rows]
        return f'<div class="wide"><table>{"".join(lines)}</table></div>'

    def _line(self, tag: str, row: Sequence[Cell]) -> str:
        cells = []
        for index, (cell, side) in enumerate(zip(row, self.align)):
            colour = self.colours.get(cell) if index == 0 and isinstance(cell, str) else None
            dot = f'<i style="background:{colour}"></i>' if colour else ""
            parts = (part.html() if isinstance(part, Link) else escape(part) for part in _parts(cell))
            text = "".join(parts).replace("\n", "<br>")
            cells.append(f'<{tag} class="{side}">{dot}{text}</{tag}>')
        return f"<tr>{''.join(cells)}</tr>"


@dataclass(frozen=True)
class Figure:
    """A picture in the page's folder; `alt` describes it for those who do not see it."""

    file: str
    alt: str
    caption: str

    def markdown(self) -> str:
        return f"![{_escape(self.alt)}]({quote(self.file)})\n\n{_escape(self.caption)}"

    def html(self, folder: Path) -> str:
        data = base64.b64encode((folder / self.file).read_bytes()).decode("ascii")
        source = f"data:{TYPES[Path(self.file).suffix]};base64,{data}"
        alt, caption = escape(self.alt), escape(self.caption)
        image = f'<div class="wide"><img src="{source}" alt="{alt}"></div>'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


@dataclass(frozen=True)
class Code:
    """Text as it is. With a `summary` it is folded under that line."""

    text: str
    language: str = ""
    summary: str = ""

    def markdown(self) -> str:
        # A fence must be longer than any in the text, which is the user's.
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", self.text)), default=0))
        block = f"{fence}{self.language}\n{self.text.rstrip()}\n{fence}"
        return f"<details><summary>{escape(self.summary)}</summary>\n\n{block}\n\n</details>" if self.summary else block

    def html(self, folder: Path) -> str:
        block = f"<pre>{escape(self.text.rstrip())}</pre>"
        return f"<details><summary>{escape(self.summary)}</summary>{block}</details>" if self.summary else block


@dataclass(frozen=True)
class Links:
    """Files beside the page: (text, relative address)."""

    links: Sequence[tuple[str, str]]

    def markdown(self) -> str:
        return " · ".join(Link(*link).markdown() for link in self.links)

    def html(self, folder: Path) -> str:
        return f'<p class="links">{" · ".join(Link(*link).html() for link in self.links)}</p>'


Block = Union[Section, Text, Tiles, Table, Figure, Code, Links]


def write(folder: Path, title: str, blocks: Sequence[Block], name: str = "report") -> Path:
    """Write NAME.md and NAME.html into `folder`, where the pictures are; the path of NAME.html."""
    parts = [f"# {_escape(title)}", *(block.markdown() for block in blocks)]
    (folder / f"{name}.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    body = "\n".join(block.html(folder) for block in blocks)
    path, beside = folder / f"{name}.html", folder / f".{name}.html"
    beside.write_text(PAGE.substitute(title=escape(title), style=STYLE, body=body), encoding="utf-8")
    beside.replace(path)  # last and at once: a page that is there is whole
    return path


def _parts(cell: Cell) -> Sequence[str | Link]:
    return [cell] if isinstance(cell, (str, Link)) else cell  # a Link is a tuple, too


def _escape(text: str) -> str:
    """`text` with the characters escaped that Markdown would take as its own."""
    return "".join("\\" + letter if letter in "\\`*_|[]<>" else letter for letter in text)


PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
</body>
</html>
"""
)

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5d666f; --line: #dfe3e8; --page: #fff;
  --card: #f6f7f9; --warn: #fff4dc; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a3adb7; --line: #363c43;
  --page: #15181b; --card: #1f2327; --warn: #3b3119; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem; padding-top: .9rem; border-top: 1px solid var(--line); }
p { max-width: 48rem; margin: .6rem 0; }
p.lead { font-size: 1.15rem; }
p.note, figcaption, p.links { color: var(--soft); font-size: .88rem; }
p.warning { background: var(--warn); border-radius: 6px; padding: .5rem .8rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .7rem;
  margin: 1.1rem 0; }
.tiles div { background: var(--card); border-top: 4px solid; border-radius: 6px; padding: .6rem .8rem; }
.tiles b { display: block; font-size: 1.6rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: .85rem; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .8rem .38rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
.r { text-align: right; white-space: nowrap; }
td i { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .45em; }
td:first-child { white-space: nowrap; }
figure { margin: 1rem 0 1.6rem; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption { margin-top: .35rem; max-width: 48rem; }
pre { background: var(--card); border-radius: 6px; padding: .8rem; overflow-x: auto; font-size: .83rem;
  line-height: 1.45; }
summary { cursor: pointer; margin: .6rem 0; }
a { color: inherit; }
@media screen and (max-width: 44rem) { .wide img { width: 44rem; max-width: none; } }
@media print { :root { color-scheme: light; --ink: #000; --page: #fff; --card: #f4f4f4; --soft: #444;
  --line: #ccc; --warn: #fff; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } pre { white-space: pre-wrap; }
  figure, tr, .tiles { break-inside: avoid; } .wide { overflow: visible; } h2 { break-after: avoid; } }
"""
