"""Text from outside as people may see it: nothing invisible, nothing that steers a terminal."""

from __future__ import annotations

import difflib
import json
import unicodedata

from interlock.domain.canonical import Json, canonical_text

_MOST_LINES = 400
_LONGEST_LINE = 2000


def visible(value: Json) -> str:
    r"""Render a value with control, format and direction characters spelled out.

    >>> visible("a\u202eb")
    'a⟨U+202E⟩b'
    """
    text = value if isinstance(value, str) else canonical_text(value)
    return "".join(_spelled(char) for char in text)


def difference(before: Json, after: Json, *, names: tuple[str, str]) -> list[str]:
    """Return the lines in which two values differ, as `diff -u` does; None is nothing at all.

    ASCII alone, so that nothing invisible or reordering is overlooked; what is long is cut.

    >>> difference({"a": 1}, {"a": 2}, names=("then", "now"))[2:]
    ['@@ -1,3 +1,3 @@', ' {', '-  "a": 1', '+  "a": 2', ' }']
    """
    was, now = _lines(before), _lines(after)
    lines = [*difflib.unified_diff(was, now, *names, lineterm="")]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"... and {len(lines) - _MOST_LINES} more lines"]
    return [_cut(line) for line in lines]


def _lines(value: Json) -> list[str]:
    if value is None:
        return []
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True).splitlines()


def _cut(line: str) -> str:
    left = len(line) - _LONGEST_LINE
    return line if left <= 0 else f"{line[:_LONGEST_LINE]}... and {left} more characters"


def _spelled(char: str) -> str:
    if char == "\n" or unicodedata.category(char) not in {"Cc", "Cf", "Co", "Cs"}:
        return char
    return f"⟨U+{ord(char):04X}⟩"
