from __future__ import annotations

from interlock.domain.canonical import JsonObject
from interlock.manifest.places import misplaced, pointers

SCHEMA: JsonObject = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"a": {"type": "string"}},
}


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
