"""Pointers in project files: which sources templates may use, and whether a schema has a place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from interlock.domain.canonical import Json, JsonObject
from interlock.manifest.files import Place

SOURCES = frozenset(
    {"in", "out", "effect", "guard", "found", "status", "etag", "body", "tick", "input"}
    | {"step", "shared", "failure"}
)
"""Every source that templates know somewhere; another word before a colon is plain text."""

_POINTER = re.compile(r"([a-z]+):(.*)", re.DOTALL)
_EFFECT = frozenset({"/id", "/key"})
Schemas = Mapping[str, JsonObject | None]
"""What may be pointed into, by source; None where the shape is not known."""


def pointers(template: Json, place: Place = ()) -> Iterator[tuple[Place, str, str]]:
    """Yield place, source and pointer of each text in a template that is a pointer."""
    if isinstance(template, str):
        match = _POINTER.fullmatch(template)
        if match and match[1] in SOURCES:
            rest = match[2]
            yield place, match[1], rest if rest.startswith("/") or not rest else f"/{rest}"
    elif isinstance(template, list):
        for index, item in enumerate(template):
            yield from pointers(item, (*place, index))
    elif isinstance(template, dict):
        for key, item in template.items():
            yield from pointers(item, (*place, key))


def misplaced(template: Json, schemas: Schemas) -> Iterator[tuple[Place, str]]:
    """Yield place and message of each pointer that can find nothing."""
    for place, source, pointer in pointers(template):
        schema = schemas.get(source)
        if source not in schemas:
            known = ", ".join(f"`{name}:`" for name in schemas)
            yield place, f"`{source}:` means nothing here, {known} do"
        elif source == "effect" and pointer not in _EFFECT:
            yield place, f"an effect has no `{pointer}`, only `effect:id` and `effect:key`"
        elif schema is not None and not has_place(schema, pointer):
            yield place, f"there is nothing at `{source}:{pointer}`"


def has_place(schema: JsonObject, pointer: str) -> bool:
    """Return False only if no value that fits the schema has anything at the pointer.

    >>> closed = {
    ...     "properties": {"a": {"type": "array", "items": {}}},
    ...     "additionalProperties": False,
    ... }
    >>> has_place(closed, "/a/0/x"), has_place(closed, "/b")
    (True, False)
    """
    node: Json = schema
    for part in pointer.split("/")[1:]:
        node = _resolved(schema, node)
        if not isinstance(node, dict):
            return True
        key = part.replace("~1", "/").replace("~0", "~")
        properties = node.get("properties")
        if isinstance(properties, dict) and key in properties:
            node = properties[key]
        elif node.get("type") == "array" and key.isdigit():
            node = node.get("items")
        else:
            is_scalar = node.get("type") in {"string", "integer", "number", "boolean"}
            return not is_scalar and node.get("additionalProperties") is not False
    return True


def _resolved(root: JsonObject, node: Json) -> Json:
    """Follow local references; None where they lead nowhere or in a circle."""
    for _ in range(len(root) + 32):
        if not isinstance(node, dict) or "$ref" not in node:
            return node
        found: Json = root
        for part in str(node["$ref"]).removeprefix("#").split("/")[1:]:
            found = found.get(part) if isinstance(found, dict) else None
        node = found
    return None
