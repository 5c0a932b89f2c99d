"""Maps JSON Schema contracts to Cedar types, and arguments to Cedar values.

A part that Cedar cannot type (numbers, unions, recursion, arrays of objects, open objects) is
hidden: it is not in the Cedar schema, so a policy that names it does not load, and it is not
passed. A value that does not fit its type is an error, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, assert_never

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.domain.pointer import read

RESERVED_KEYS = frozenset({"__entity", "__extn", "__expr"})
"""Keys with which a JSON value could pass for a Cedar entity, extension or unknown."""

_MAX_DEPTH = 3
_MAX_REFERENCES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A Cedar scalar."""

    kind: Literal["Long", "String", "Boolean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOf:
    """A Cedar set of scalars."""

    item: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A Cedar record: visible fields, those of them that are required, and hidden names.

    Other names are dropped if the object is open and refused if it is closed.
    """

    fields: Mapping[str, Shape] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    is_open: bool = False


Shape: TypeAlias = Scalar | SetOf | Record


def arguments_shape(schema: JsonObject, *, hidden: tuple[str, ...] = ()) -> Record:
    """Return the shape of a tool's arguments; `hidden` are top-level names kept from policy."""
    shape = _record(schema, root=schema, depth=0, hidden=frozenset(hidden))
    return Record() if shape is None else shape


def is_closed(schema: JsonObject) -> bool:
    """Whether an object schema refuses members that it does not declare."""
    return (
        schema.get("additionalProperties") is False or schema.get("unevaluatedProperties") is False
    )


def is_always_present(schema: JsonObject, pointer: str) -> bool:
    """Whether every value that fits the schema has something other than null at the pointer."""
    part: Json = schema
    for key in pointer.split("/")[1:]:
        name = key.replace("~1", "/").replace("~0", "~")
        resolved = _resolved(part, schema)
        if resolved is None or name not in _names(resolved.get("required")):
            return False
        properties = resolved.get("properties")
        part = properties.get(name) if isinstance(properties, dict) else None
    resolved = _resolved(part, schema)
    return resolved is not None and not _is_nullable(resolved)


def cedar_type(shape: Shape) -> JsonObject:
    """Render a shape as a type of Cedar's JSON schema format."""
    match shape:
        case Scalar():
            return {"type": shape.kind}
        case SetOf():
            return {"type": "Set", "element": cedar_type(shape.item)}
        case Record():
            attributes: JsonObject = {
                name: cedar_type(inner) | {"required": name in shape.required}
                for name, inner in sorted(shape.fields.items())
            }
            return {"type": "Record", "attributes": attributes}
        case _:
            assert_never(shape)


def cedar_value(shape: Shape, value: Json, *, at: str = "") -> Json:
    """Map a value to what Cedar reads; raises `InputError` naming the place that does not fit."""
    match shape:
        case Scalar():
            return _scalar_value(shape, value, at)
        case SetOf():
            if not isinstance(value, list):
                raise _misfit(at, "a list")
            return [_scalar_value(shape.item, item, f"{at}/{n}") for n, item in enumerate(value)]
        case Record():
            return _record_value(shape, value, at)
        case _:
            assert_never(shape)


def find_reserved_key(value: Json) -> str | None:
    """Return a reserved key that is used anywhere in a value, or None."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            for key in item:
                if key in RESERVED_KEYS:
                    return key
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return None


def _shape(schema: Json, *, root: JsonObject, depth: int) -> Shape | None:
    resolved = _resolved(schema, root)
    if resolved is None:
        return None
    kind = _kind(resolved)
    if kind == "object":
        is_hidden = depth > _MAX_DEPTH or not is_closed(resolved)
        return None if is_hidden else _record(resolved, root=root, depth=depth)
    if kind == "array":
        if "prefixItems" in resolved or "items" not in resolved:
            return None
        item = _resolved(resolved["items"], root)
        if item is None or _is_nullable(item):
            return None
        scalar = _scalar(_kind(item))
        return None if scalar is None else SetOf(item=scalar)
    return _scalar(kind)


def _record(
    schema: JsonObject, *, root: JsonObject, depth: int, hidden: frozenset[str] = frozenset()
) -> Record | None:
    properties = schema.get("properties", {})
    if not isinstance(properties, dict) or "patternProperties" in schema:
        return None
    fields: dict[str, Shape] = {}
    nullable: set[str] = set()
    for name, part in properties.items():
        if name in hidden or name in RESERVED_KEYS:
            continue
        shape = _shape(part, root=root, depth=depth + 1)
        if shape is None:
            continue
        fields[name] = shape
        resolved = _resolved(part, root)
        if resolved is not None and _is_nullable(resolved):
            nullable.add(name)
    if depth and not fields:
        return None
    return Record(
        fields=fields,
        required=(_names(schema.get("required")) & set(fields)) - nullable,
        hidden=frozenset(set(properties) - set(fields)),
        is_open=not is_closed(schema),
    )


def _resolved(schema: Json, root: JsonObject) -> JsonObject | None:
    """Follow local references and take the one branch of `T or null`; None if it is a union."""
    is_nullable = False
    for _ in range(_MAX_REFERENCES):
        if not isinstance(schema, dict):
            return None
        reference = schema.get("$ref")
        branches = schema.get("anyOf", schema.get("oneOf"))
        if isinstance(reference, str) and reference.startswith("#"):
            try:
                schema = read(root, reference[1:])
            except InputError:
                return None
        elif "type" not in schema and isinstance(branches, list):
            rest = [branch for branch in branches if branch != {"type": "null"}]
            if len(rest) != 1 or len(rest) == len(branches):
                return None
            is_nullable, schema = True, rest[0]
        elif "$ref" in schema or "$dynamicRef" in schema:
            return None
        else:
            return {**schema, "type": [_kind(schema), "null"]} if is_nullable else schema
    return None


def _kind(schema: JsonObject) -> str | None:
    declared = schema.get("type")
    if isinstance(declared, list):
        kinds = [kind for kind in declared if kind != "null"]
        declared = kinds[0] if len(kinds) == 1 else None
    if declared is None:
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        return _kind_of_values(values)
    return declared if isinstance(declared, str) else None


def _kind_of_values(values: Json) -> str | None:
    if not isinstance(values, list):
        return None
    kinds = {type(value) for value in values if value is not None}
    return {
        frozenset({str}): "string",
        frozenset({bool}): "boolean",
        frozenset({int}): "integer",
    }.get(frozenset(kinds))


def _is_nullable(schema: JsonObject) -> bool:
    declared = schema.get("type")
    if isinstance(declared, list):
        return "null" in declared
    if declared is None:
        values = schema.get("enum")
        return isinstance(values, list) and None in values
    return declared == "null"


def _scalar(kind: str | None) -> Scalar | None:
    match kind:
        case "string":
            return Scalar(kind="String")
        case "integer":
            return Scalar(kind="Long")
        case "boolean":
            return Scalar(kind="Boolean")
        case _:
            return None


def _names(value: Json) -> frozenset[str]:
    return (
        frozenset(v for v in value if isinstance(v, str))
        if isinstance(value, list)
        else frozenset()
    )


def _scalar_value(shape: Scalar, value: Json, at: str) -> Json:
    match shape.kind:
        case "String" if isinstance(value, str):
            return value
        case "Boolean" if isinstance(value, bool):
            return value
        case "Long" if isinstance(value, int) and not isinstance(value, bool):
            if -(2**63) <= value < 2**63:
                return value
        # JSON Schema counts 1.0 as an integer, and its canonical form is 1.
        case "Long" if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
            return int(value)
        case _:
            pass
    raise _misfit(at, f"a {shape.kind}")


def _record_value(shape: Record, value: Json, at: str) -> JsonObject:
    if not isinstance(value, dict):
        raise _misfit(at, "an object")
    mapped: JsonObject = {}
    for name, item in value.items():
        inner = shape.fields.get(name)
        if inner is None:
            if name not in shape.hidden and not shape.is_open:
                msg = f"`{at}/{name}` is not declared in the tool's contract"
                raise InputError(msg)
        elif item is not None:
            mapped[name] = cedar_value(inner, item, at=f"{at}/{name}")
    missing = sorted(shape.required - set(mapped))
    if missing:
        msg = f"`{at}/{missing[0]}` is missing"
        raise InputError(msg)
    return mapped


def _misfit(at: str, wanted: str) -> InputError:
    return InputError(f"`{at or '/'}` is not {wanted}, so policy cannot judge it")
