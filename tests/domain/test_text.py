from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from interlock.domain.canonical import JsonObject
from interlock.domain.text import difference, visible


@given(st.text())
def test_nothing_invisible_is_left(text: str) -> None:
    """Control, format, private and surrogate characters are spelled out, line breaks stay."""
    shown = visible(text)

    assert not [
        c for c in shown if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Co", "Cs"}
    ]


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Z"])))
def test_what_can_be_seen_is_left_as_it_is(text: str) -> None:
    """Letters of any script, marks, digits, signs and spaces."""
    assert text == visible(text)


def test_other_values_are_shown_as_json() -> None:
    """In the form that digests are taken over."""
    assert '{"a":[1,null],"b":"x⟨U+200B⟩"}' == visible({"b": "x\u200b", "a": [1, None]})


def test_nothing_in_a_difference_is_invisible() -> None:
    """What would hide is shown by its number; what is long is cut in sight."""
    hidden: JsonObject = {"name": "echo", "description": "safe\u202e \u001b[2K \u200b"}
    long: JsonObject = {str(n): n for n in range(1000)}
    names = ("then", "now")

    lines = difference({"name": "echo"}, hidden, names=names)

    assert any("\\u202e \\u001b[2K \\u200b" in line for line in lines)
    assert all(line.isprintable() for line in lines)
    assert difference(None, long, names=names)[-1].startswith("... and ")
    assert difference(None, {"name": "x" * 3000}, names=names)[-2].endswith(" more characters")
    assert [] == difference(hidden, hidden, names=names)
