"""Fonts for class names in any script.

DejaVu Sans, which comes with Matplotlib, has Latin, Greek, Cyrillic, Arabic and Hebrew letters. For others the
installed fonts are looked through; where none has a letter, it is shown by its number, and one sentence says what to
install.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

log = logging.getLogger("gan_kd")
NORMAL = "DejaVu Sans"
_NORMAL_FILE = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans-Bold.ttf"))
# What to install, by the code points of a letter, from the first that fits.
_PACKAGES = (
    ("Symbola (Debian: fonts-symbola)", ((0x1F000, 0x1FAFF),)),
    (
        "Noto Sans CJK (Debian: fonts-noto-cjk)",
        ((0x1100, 0x11FF), (0x2E80, 0xA4CF), (0xAC00, 0xD7FF), (0xF900, 0xFAFF), (0xFF00, 0xFFEF), (0x20000, 0x3FFFF)),
    ),
    ("Noto (Debian: fonts-noto-core)", ((0, 0x10FFFF),)),
)
_told: set[str] = set()


def style_for(texts: Iterable[str]) -> dict[Any, Any]:
    """Matplotlib settings with which these texts are readable; pass the texts through `readable`, too."""
    return {"font.family": [NORMAL, *(font for font, _ in _further(_missing(texts)))]}


def readable(text: str) -> str:
    """A text whose letters that no font here has are written as their numbers; tells what to install, once."""
    missing = _missing([text])
    if not missing:
        return text
    lost = missing - frozenset().union(*(_letters(file) for _, file in _further(missing)))
    if not lost:
        return text
    _tell(lost)
    return _numbered(text, lost)


def for_pillow(text: str) -> tuple[str, str]:
    """A font file for a text, as Pillow takes one, and the text; letters that it does not have are numbers."""
    text = readable(text)
    files = [_NORMAL_FILE, *(file for _, file in _further(_missing([text])))]
    best = max(files, key=lambda file: len(frozenset(text) & _letters(file)))
    return best, _numbered(text, frozenset(text) - _letters(best))


def _numbered(text: str, lost: frozenset[str]) -> str:
    return "".join(f"U+{ord(letter):04X}" if letter in lost else letter for letter in text)


def _missing(texts: Iterable[str]) -> frozenset[str]:
    """The letters that DejaVu Sans does not have."""
    return frozenset().union(*texts) - _letters(_NORMAL_FILE)


def _installed() -> dict[str, str]:
    """Fonts by name. Matplotlib keeps a list of them that it made when it first ran: new ones are added."""
    known = {entry.fname for entry in fontManager.ttflist}
    for file in sorted(set(findSystemFonts()) - known):
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            fontManager.addfont(file)
    return {entry.name: entry.fname for entry in fontManager.ttflist if entry.name != NORMAL}


@lru_cache(maxsize=64)
def _further(missing: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Names and files of installed fonts that together have as many of these letters as any do."""
    fonts = _installed() if missing else {}
    chosen: list[tuple[str, str]] = []
    while missing and fonts:
        best = max(fonts, key=lambda name: len(missing & _letters(fonts[name])))
        gained = missing & _letters(fonts[best])
        if not gained:
            break
        chosen.append((best, fonts.pop(best)))
        missing -= gained
    return tuple(chosen)


@lru_cache(maxsize=1024)
def _letters(file: str) -> frozenset[str]:
    """The letters of a font; none of a file that FreeType cannot read."""
    try:
        return frozenset(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _tell(lost: frozenset[str]) -> None:
    for letter in sorted(lost):
        package = next(name for name, parts in _PACKAGES if any(low <= ord(letter) <= high for low, high in parts))
        if package not in _told:
            _told.add(package)
            log.warning(
                "no font here has '%s' of a class name, so pictures show its number: install %s", letter, package
            )
