"""Text from outside as people may see it: nothing invisible, nothing that steers a terminal."""

from __future__ import annotations

import unicodedata

from interlock.domain.canonical import Json, canonical_text


def visible(value: Json) -> str:
    r"""Render a value with control, format and direction characters spelled out.

    >>> visible("a\u202eb")
    'a⟨U+202E⟩b'
    """
    text = value if isinstance(value, str) else canonical_text(value)
    return "".join(_spelled(char) for char in text)


def _spelled(char: str) -> str:
    if char == "\n" or unicodedata.category(char) not in {"Cc", "Cf", "Co", "Cs"}:
        return char
    return f"⟨U+{ord(char):04X}⟩"
