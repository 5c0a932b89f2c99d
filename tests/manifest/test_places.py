from __future__ import annotations

import pytest

from interlock.domain.canonical import JsonObject
from interlock.manifest.places import has_place, misplaced, pointers

SCHEMA: JsonObject = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "a/b": {"type": "string"},
        "list": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "open": {"type": "object"},
        "self": {"$ref": "#/properties/self"},
    },
    "$defs": {"item": {"properties": {"id": {}}, "additionalProperties": False}},
}


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("", True),
        ("/a~1b", True),
        ("/a~1b/c", False),
        ("/list/0/id", True),
        ("/list/0/nr", False),
        ("/open/anything", True),
        ("/self/x", True),
        ("/none", False),
    ],
)
def test_place_is_absent_only_if_no_value_could_have_it(pointer: str, *, expected: bool) -> None:
    """References are followed, open objects may hold anything, circles end."""
    assert expected == has_place(SCHEMA, pointer)


def test_only_known_sources_are_pointers() -> None:
    """A text with a colon is a text; a pointer may leave out its first slash."""
    template: JsonObject = {"a": "http://x", "b": ["in:/x", "step:one/y"], "c": "literal:in:/x"}

    assert [(("b", 0), "in", "/x"), (("b", 1), "step", "/one/y")] == list(pointers(template))


def test_misplaced_pointers_are_named_with_their_place() -> None:
    """A source that means nothing here, and a place that no value has."""
    found = list(misplaced({"a": "out:/x", "b": "in:/none"}, {"in": SCHEMA}))

    assert [
        (("a",), "`out:` means nothing here, `in:` do"),
        (("b",), "there is nothing at `in:/none`"),
    ] == found
