from __future__ import annotations

import pytest

from interlock.domain.canonical import JsonObject
from interlock.tools.places import has_place, types_at

SCHEMA: JsonObject = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "a/b": {"type": "string"},
        "list": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "open": {"type": "object"},
        "count": {"type": "integer"},
        "some": {"type": ["string", "null"]},
        "rows": {"type": ["array", "null"], "items": {"type": "string"}},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "null"}},
        "tags": {"patternProperties": {"^x": {}}, "additionalProperties": False},
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
        ("/some/x", False),
        ("/rows/0", True),
        ("/rows/0/x", False),
        ("/tags/x1", True),
        ("/none", False),
    ],
)
def test_place_is_absent_only_if_no_value_could_have_it(pointer: str, *, expected: bool) -> None:
    """References are followed, open objects may hold anything, circles end."""
    assert expected == has_place(SCHEMA, pointer)


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("/a~1b", {"string"}),
        ("/count", {"integer", "number"}),
        ("/open/anything", set()),
        ("/list/0/id", set()),
        ("/some", {"string", "null"}),
        ("/rows/0", {"string"}),
        ("/pair/0", set()),
    ],
)
def test_types_are_those_that_the_schema_names(pointer: str, *, expected: set[str]) -> None:
    """An integer is a number too; silence names none."""
    assert expected == types_at(SCHEMA, pointer)
