from __future__ import annotations

import pytest

from interlock.domain.text import visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("VPN is down\nsince 9", "VPN is down\nsince 9"),
        ("\u00e9\U0001f600", "\u00e9\U0001f600"),
        ("pay \u202e001", "pay \u27e8U+202E\u27e9001"),
        ("a\u200bb", "a\u27e8U+200B\u27e9b"),
        ("\x1b[2J", "\u27e8U+001B\u27e9[2J"),
        ("a\rb\tc", "a\u27e8U+000D\u27e9b\u27e8U+0009\u27e9c"),
        ("\ue000", "\u27e8U+E000\u27e9"),
    ],
)
def test_nothing_invisible_is_left(text: str, expected: str) -> None:
    """What hides, turns or steers is spelled out; letters and line breaks stay."""
    assert expected == visible(text)


def test_other_values_are_shown_in_canonical_form() -> None:
    """A value that is no string is shown as the JSON that digests are taken over."""
    assert '{"a":1,"b":"\u27e8U+202E\u27e9"}' == visible({"b": "\u202e", "a": 1.0})
