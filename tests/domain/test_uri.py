"""URI templates: what is filled in is found again, and nothing moves the path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.domain import uri
from interlock.domain.errors import InputError

TEMPLATE = "notes://{team}/{note}/text"
VALUES = st.text(st.characters(codec="utf-8"), min_size=1).filter(
    lambda value: not {".", ".."} & set(value.replace("\\", "/").split("/"))
)


@given(team=VALUES, note=VALUES)
def test_what_is_filled_in_is_found_again(team: str, note: str) -> None:
    """Slashes, question marks and percent signs of a value stay in the value."""
    filled = uri.expand(TEMPLATE, {"team": team, "note": note})

    assert {"team": team, "note": note} == uri.match(TEMPLATE, filled)
    assert 2 == filled.removeprefix("notes://").count("/")


@pytest.mark.parametrize("value", ["", ".", "..", "a/../../b", "..\\b", "a/."])
def test_a_value_that_would_move_the_path_is_refused(value: str) -> None:
    """`..` is encoded as itself, and what is encoded may be decoded before it is resolved."""
    with pytest.raises(InputError, match="`note` cannot be"):
        uri.expand(TEMPLATE, {"team": "it", "note": value})


@pytest.mark.parametrize(
    "template", ["a://{+path}", "a://{?word}", "a://{}", "a://{b", "a://b}", "a://{b*}", "a://{1}"]
)
def test_other_expressions_are_refused(template: str) -> None:
    """They would be encoded otherwise, or not completely."""
    with pytest.raises(InputError, match="is no URI with"):
        uri.variables(template)


@pytest.mark.parametrize("template", ["a://{b}{c}", "a://{b}-{c}", "a://x/{b}.{c}/y"])
def test_a_part_of_the_path_has_one_name(template: str) -> None:
    """Which value ends where would be a guess, and a search that takes for ever."""
    with pytest.raises(InputError, match="two names in one part"):
        uri.variables(template)


def test_a_uri_is_of_a_bounded_length() -> None:
    """It is compared with every template, before anything is decided."""
    assert uri.match("a://{b}", f"a://{'x' * 9000}") is None


def test_a_name_stands_once() -> None:
    """A second value could be another one."""
    with pytest.raises(InputError, match="has a name twice"):
        uri.variables("a://{b}/{b}")


@pytest.mark.parametrize("other", ["notes://it/vpn", "notes://it/a/b/text", "notes://it//text"])
def test_another_uri_is_none_of_the_template(other: str) -> None:
    """A value is one whole part of the path."""
    assert uri.match(TEMPLATE, other) is None
