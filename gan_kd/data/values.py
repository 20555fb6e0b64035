"""Texts, numbers, flags and ids as other tools write them: read where the meaning is certain, else a Flaw."""

from __future__ import annotations

import codecs
import contextlib
import math
import re
from collections.abc import Sequence
from typing import Union

from gan_kd.data.record import Flaw

Ident = Union[int, str]
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's mark, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DECLARED = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})["']""")
# By Python's name: the widest of each family, for files say gb2312 and hold characters of its successors.
_MULTIBYTE = {
    "gb2312": "gb18030", "gbk": "gb18030", "gb18030": "gb18030", "big5": "cp950", "cp950": "cp950",
    "big5hkscs": "big5hkscs", "shift_jis": "cp932", "cp932": "cp932", "euc_jp": "euc_jp",
    "iso2022_jp": "iso2022_jp", "euc_kr": "cp949", "cp949": "cp949",
}  # fmt: skip
_ONE_BYTE = ("iso8859-", "cp125", "cp437", "cp85", "cp86", "koi8-", "mac-")
_FLAGS = dict.fromkeys(("1", "true", "yes", "y", "t"), True)
_FLAGS |= dict.fromkeys(("0", "false", "no", "n", "f", "none", "null", "unspecified", ""), False)


def decoded(content: bytes, encoding: str = "utf-8", errors: str = "strict") -> str:
    """The text of a file: UTF-16 or UTF-32 where its first bytes say so, else `encoding`; UnicodeDecodeError."""
    for mark, marked in _MARKS.items():
        if content.startswith(mark):
            return content.decode(marked, errors)
    if content[1:2] == b"\0" != content[:1]:
        encoding = "utf-16-le"
    elif content[:1] == b"\0" != content[1:2]:
        encoding = "utf-16-be"
    return content.decode(encoding, errors)


def decoded_xml(content: bytes) -> str:
    """The same for XML, in the encoding that it declares; Flaw where that is none or it is not in it."""
    declared = _DECLARED.match(content)
    name = declared[1].decode() if declared else "UTF-8"
    try:
        return decoded(content, _codec(name)).lstrip()
    except UnicodeDecodeError as error:
        raise Flaw(f"is not {name} at its byte {error.start + 1:,}: save it as UTF-8") from None


def _codec(name: str) -> str:
    """Only codecs of characters: Python has others, of which some take minutes for a few megabytes."""
    try:
        found = codecs.lookup(name).name
    except LookupError:
        found = ""
    if found in ("utf-8", "ascii") or found.startswith("utf-16"):  # what declares UTF-16 in single bytes is UTF-8
        return "utf-8"
    if found not in _MULTIBYTE and not found.startswith(_ONE_BYTE):
        raise Flaw(f"is in the encoding '{name}', which is not known here: save it as UTF-8")
    return _MULTIBYTE.get(found, found)


def number(value: object, name: str) -> float:
    """A finite number, also as text; Flaw for anything else."""
    found = math.nan
    odd = isinstance(value, bool) or (isinstance(value, str) and "_" in value)  # Python reads 1_0 as ten
    if isinstance(value, (int, float, str)) and not odd:
        with contextlib.suppress(ValueError, OverflowError):
            found = float(value)
    if not math.isfinite(found):
        raise Flaw(f"{name} is {shown(value)}, not a number")
    return found


def size_or_none(values: Sequence[object], names: Sequence[str]) -> tuple[float, ...] | None:
    """A size as it is written; None where a side is 0 or missing, as some tools write what they do not know."""
    if any(value is None or (isinstance(value, str) and not value.strip()) for value in values):
        return None
    found = tuple(number(value, name) for value, name in zip(values, names))
    return None if 0 in found else found


def flag(value: object, name: str) -> bool:
    """A yes or no in words, numbers or missing (no); Flaw for anything else."""
    if value is None or isinstance(value, bool):
        return bool(value)
    word = str(value).strip().lower() if isinstance(value, (int, float, str)) else "?"
    if word in _FLAGS:
        return _FLAGS[word]
    try:
        return number(value, name) != 0
    except Flaw:
        raise Flaw(f"{name} is {shown(value)}, neither 0 nor 1") from None


def ident(value: object, name: str) -> Ident:
    """An id as it is compared: 7, 7.0, "7" and "07" are one. Flaw for what is no id."""
    if isinstance(value, str) and value.strip():
        text = value.strip()
        return int(text.partition(".")[0]) if re.fullmatch(r"[0-9]{1,18}(\.0+)?", text) else text
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Flaw(f"has no {name}" if value is None else f"{name} is {shown(value)}, neither a number nor a text")


def shown(value: object) -> str:
    """A value for a message."""
    text = "null" if value is None else f"'{value.strip()}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
