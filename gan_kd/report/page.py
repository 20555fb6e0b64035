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

from gan_kd.recipe.words import INHERITANCE, UNTRAINED

# Okabe and Ito's colours, which stay apart for colour-blind readers and in grey print.
COLOURS = {"teacher": "#59636e", "baseline": "#0072b2", "control": "#009e73", "distilled": "#d55e00"}
#: By what the tables call a network.
DOTS = {**COLOURS, INHERITANCE: COLOURS["control"], UNTRAINED: COLOURS["control"]}
COLUMN_HEAD, ROW_HEAD = 'th scope="col"', 'th scope="row"'
TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Section:
    """A heading of the second level."""

    title: str

    def markdown(self) -> str:
        return f"## {self.title}"

    @property
    def anchor(self) -> str:
        """The heading's address in the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def html(self, folder: Path) -> str:
        return f'<h2 id="{self.anchor}">{escape(self.title)}</h2>'


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
            f'<div><i style="background:{colour}"></i><b>{escape(value)}</b><span>{escape(label)}</span></div>'
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

    A cell is text, a link, or a list of both. `feet`: so many last rows are no peers of those above, and stay last
    when a reader sorts the page's table. A head of empty cells makes a list of names and values.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    align: str
    colours: dict[str, str] = field(default_factory=dict)
    feet: int = 0

    def markdown(self) -> str:
        rule = [{"l": ":--", "r": "--:"}[side] for side in self.align]
        rows = [[self._cell(cell) for cell in row] for row in (self.head, *self.rows)]
        return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))

    def _cell(self, cell: Cell) -> str:
        parts = (part.markdown() if isinstance(part, Link) else _escape(part) for part in _parts(cell))
        return "".join(parts).replace("\n", "<br>")

    def html(self, folder: Path) -> str:
        named = any(self.head)
        first, cut = "td" if named else ROW_HEAD, len(self.rows) - self.feet
        head = f"<thead>{self._line(self.head, COLUMN_HEAD, COLUMN_HEAD)}</thead>" if named else ""
        lines = [self._line(row, first, "td") for row in self.rows]
        foot = f"<tfoot>{''.join(lines[cut:])}</tfoot>" if self.feet else ""
        return f'<div class="wide"><table>{head}<tbody>{"".join(lines[:cut])}</tbody>{foot}</table></div>'

    def _line(self, row: Sequence[Cell], first: str, others: str) -> str:
        """A row; first, others: the tags of its cells."""
        cells = []
        for index, (cell, side) in enumerate(zip(row, self.align)):
            tag = others if index else first
            colour = self.colours.get(cell) if index == 0 and isinstance(cell, str) else None
            dot = f'<i style="background:{colour}"></i>' if colour else ""
            parts = (part.html() if isinstance(part, Link) else escape(part) for part in _parts(cell))
            text = "".join(parts).replace("\n", "<br>")
            cells.append(f'<{tag} class="{side}">{dot}{text}</{tag.split()[0]}>')
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
        # Plots swap light and dark with the page (page.css), photographs do not.
        kind = ' class="plot"' if self.file.endswith(".png") else ""
        image = f'<div class="wide"><img src="{source}" alt="{alt}"{kind}></div>'
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
    (folder / f"{name}.md").write_text(
        "\n\n".join(part for part in parts if part) + "\n", encoding="utf-8", errors="backslashreplace"
    )
    values = {
        "title": escape(title),
        "style": _beside("page.css"),
        "script": _beside("page.js"),
        "sections": _sections(blocks),
        "body": "\n".join(block.html(folder) for block in blocks),
    }
    path, beside = folder / f"{name}.html", folder / f".{name}.html"
    beside.write_text(PAGE.substitute(values), encoding="utf-8", errors="backslashreplace")
    beside.replace(path)  # last and at once: a page that is there is whole
    return path


def _sections(blocks: Sequence[Block]) -> str:
    """Links to the sections of a page; nothing for one without."""
    sections = [block for block in blocks if isinstance(block, Section)]
    links = (f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>' for section in sections)
    return f'<nav aria-label="Sections"><ul>{"".join(links)}</ul></nav>' if sections else ""


def _beside(name: str) -> str:
    """A file of this folder: the style or the script of every page."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8", errors="backslashreplace")


def _parts(cell: Cell) -> Sequence[str | Link]:
    return [cell] if isinstance(cell, (str, Link)) else cell  # a Link is a tuple, too


def _escape(text: str) -> str:
    """`text` with the characters escaped that Markdown would take as its own."""
    return "".join("\\" + letter if letter in "\\`*_|[]<>" else letter for letter in text)


# The policy holds browsers to what the page is: one file, which asks no network for anything.
PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline';
 script-src 'unsafe-inline'">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<h1>$title</h1>
$sections
</header>
<main id="main" tabindex="-1">
$body
</main>
<script>
$script</script>
</body>
</html>
"""
)
