from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.domain.canonical import Json
from interlock.domain.errors import InputError
from interlock.domain.pointer import fill, read

# The document and the pointers of RFC 6901, section 5.
_RFC: Json = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("", _RFC),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_pointer_is_read_as_the_standard_says(pointer: str, expected: Json) -> None:
    """The examples of RFC 6901 give the values it lists."""
    assert expected == read(_RFC, pointer)


@pytest.mark.parametrize(
    "pointer", ["/x", "/foo/2", "/foo/-", "/foo/00", "/foo/-1", "/foo/" + "1" * 5000, "/foo/0/x"]
)
def test_pointer_to_nothing_is_refused(pointer: str) -> None:
    """A missing member, a number outside the list or not plainly written: nothing is there."""
    with pytest.raises(InputError, match="there is nothing at"):
        read(_RFC, pointer)


def test_pointer_starts_with_a_slash() -> None:
    """A pointer without its first slash is refused, instead of losing its first part."""
    with pytest.raises(InputError, match="a pointer starts with `/`, got `foo/0`"):
        read(_RFC, "foo/0")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_key_can_be_pointed_at(key: str) -> None:
    """With `~` and `/` escaped, a pointer reaches any member."""
    assert 1 == read({key: 1}, "/" + key.replace("~", "~0").replace("/", "~1"))


def test_template_is_filled_from_its_documents() -> None:
    """Strings that name a document are replaced, at any depth; all other values stay."""
    template: Json = {
        "title": "in:/title",
        "all": "in:",
        "short": "in:title",
        "list": ["out:/id", 1, None],
        "url": "https://example.org",
        "text": "literal:in:/title",
    }

    filled = fill(template, {"in": {"title": "VPN"}, "out": {"id": 7}})

    assert {
        "title": "VPN",
        "all": {"title": "VPN"},
        "short": "VPN",
        "list": [7, 1, None],
        "url": "https://example.org",
        "text": "in:/title",
    } == filled


def test_value_that_looks_like_a_pointer_is_not_followed() -> None:
    """What a document says is data: it is put in once and never read as a template."""
    documents: dict[str, Json] = {"in": {"a": "secret:/b"}, "secret": {"b": "no"}}

    assert ["secret:/b"] == fill(["in:/a"], documents)


def test_missing_value_is_refused_unless_optional() -> None:
    """A pointer to nothing is an error; with `optional` its member is left out."""
    template: Json = {"a": "in:/x", "b": {"c": "in:/x", "d": 1}, "e": ["in:/x"]}

    assert {"b": {"d": 1}} == fill(template, {"in": {}}, optional=True)
    with pytest.raises(InputError, match="there is nothing at `/x`"):
        fill(template, {"in": {}})
