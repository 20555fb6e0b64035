"""Damage to the bytes of a sound file, the same at every call."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence

# What a size or a count in a header must not be believed to be, as 4 and as 8 bytes.
_WORDS = [struct.pack("<I", word) for word in (0, 1, 33, 10**6, 2**31 - 1, 2**31, 2**32 - 1)]
_WORDS += [struct.pack("<Q", word) for word in (2**33, 2**40, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1)]
# What a number or a name in a text must not be believed to be.
_TEXTS = [b"NaN", b"-1", b"1e999", b"9" * 5000, b"../../../x", b"/etc/passwd", b"\0", b"\n", b"null", b"[]", b"{}",
          b"true", b'"', b"&a;", b"<", b"*a", b"\xff\xfe", b"\\ud800", b"[" * 3000]  # fmt: skip


def damaged(sound: Sequence[bytes], count: int, seed: str) -> Iterator[tuple[int, str, bytes]]:
    """`count` times (which of the sound contents, what was done, the damaged content)."""
    draw = random.Random(seed)
    ways = (_flip, _flip, _cut, _splice, _word, _word, _text, _drop, _repeat)
    for number in range(count):
        which = number % len(sound)
        way = draw.choice(ways)
        what, content = way(sound[which], draw, sound)
        yield which, what, content


def _at(content: bytes, draw: random.Random) -> int:
    """A place in a file, half of them in its first 200 bytes, where headers are."""
    end = min(len(content), 200) if draw.random() < 0.5 else len(content)
    return draw.randrange(max(end, 1))


def _flip(content: bytes, draw: random.Random, _: Sequence[bytes]) -> tuple[str, bytes]:
    changed = bytearray(content)
    bits = draw.choice((1, 1, 1, 8, 64))
    for _bit in range(bits):
        changed[_at(content, draw)] ^= 1 << draw.randrange(8)
    return f"{bits} bits flipped", bytes(changed)


def _cut(content: bytes, draw: random.Random, _: Sequence[bytes]) -> tuple[str, bytes]:
    end = _at(content, draw)
    return f"cut at {end}", content[:end]


def _splice(content: bytes, draw: random.Random, sound: Sequence[bytes]) -> tuple[str, bytes]:
    other = draw.choice(sound)
    end, start = _at(content, draw), _at(other, draw)
    return f"cut at {end}, another from {start}", content[:end] + other[start:]


def _word(content: bytes, draw: random.Random, _: Sequence[bytes]) -> tuple[str, bytes]:
    word = draw.choice(_WORDS)
    at = _at(content, draw) // 4 * 4
    return f"{word.hex()} at {at}", content[:at] + word + content[at + len(word) :]


def _text(content: bytes, draw: random.Random, _: Sequence[bytes]) -> tuple[str, bytes]:
    text = draw.choice(_TEXTS)
    at, gone = _at(content, draw), draw.choice((0, 1, 5))
    return f"{text[:12]!r} at {at}", content[:at] + text + content[at + gone :]


def _drop(content: bytes, draw: random.Random, _: Sequence[bytes]) -> tuple[str, bytes]:
    at, gone = _at(content, draw), draw.choice((1, 4, 40))
    return f"{gone} bytes gone at {at}", content[:at] + content[at + gone :]


def _repeat(content: bytes, draw: random.Random, _: Sequence[bytes]) -> tuple[str, bytes]:
    at, long = _at(content, draw), draw.choice((1, 8, 100))
    times = draw.choice((2, 50))
    return f"{long} bytes at {at} {times} times", content[:at] + content[at : at + long] * times + content[at + long :]
