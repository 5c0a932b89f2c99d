"""Places in schemas: whether a value that fits could have one, and of which type it is."""

from __future__ import annotations

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.pointer import parts_of

_SCALARS = frozenset({"string", "integer", "number", "boolean", "null"})


def has_place(schema: JsonObject, pointer: str) -> bool:
    """Return False only if no value that fits the schema has anything at the pointer.

    >>> closed = {
    ...     "properties": {"a": {"type": "array", "items": {}}},
    ...     "additionalProperties": False,
    ... }
    >>> has_place(closed, "/a/0/x"), has_place(closed, "/b")
    (True, False)
    """
    return _found(schema, pointer)[0]


def types_at(schema: JsonObject, pointer: str) -> frozenset[str]:
    """Return the JSON types that the value at a pointer may have; none if the schema is silent.

    >>> sorted(types_at({"properties": {"a": {"type": "integer"}}}, "/a"))
    ['integer', 'number']
    """
    node = _found(schema, pointer)[1]
    types = _types(node) if isinstance(node, dict) else frozenset()
    return types | {"number"} if "integer" in types else types


def _found(schema: JsonObject, pointer: str) -> tuple[bool, Json]:
    """Return whether there may be such a place, and its schema; None if that is not known."""
    node: Json = schema
    for key in parts_of(pointer):
        node = _resolved(schema, node)
        if not isinstance(node, dict):
            return True, None
        types, properties = _types(node), node.get("properties")
        if isinstance(properties, dict) and key in properties:
            node = properties[key]
        elif "array" in types and key.isdigit():
            node = None if "prefixItems" in node else node.get("items")
        else:
            is_closed = node.get("additionalProperties") is False
            is_scalar = bool(types) and types <= _SCALARS
            return not is_scalar and (not is_closed or "patternProperties" in node), None
    return True, _resolved(schema, node)


def _types(node: JsonObject) -> frozenset[str]:
    """Return the types that a schema names; none if it names none."""
    named = node.get("type")
    return frozenset(str(each) for each in (named if isinstance(named, list) else [named]) if each)


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
