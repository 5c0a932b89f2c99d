"""The one writer and reader of bodies, which it redacts by contract before anything is stored.

A contract classes members with `x-interlock-class` (`pii`, `secret`, `financial`, `free_text`) in
its schemas; the manifest's `redact` names a treatment for a class or for a member by its name, at
any depth. A member's own treatment counts before its classes', of several classes the strictest.
Secrets are not stored at all. The ledger has to keep what it may have to send again; what is shown
of it is redacted here too.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, TypeAlias

from interlock.domain.canonical import Json, JsonObject, canonical
from interlock.domain.effect import Effect
from interlock.domain.errors import InputError
from interlock.domain.ids import RunId
from interlock.domain.pointer import read
from interlock.domain.tool import ToolVersion
from interlock.store import bodies
from interlock.store.tx import Tx

Treatment: TypeAlias = Literal["drop", "token", "last4", "keep"]

ARGUMENTS, RESULT = "arguments", "result"
CLASS_KEY = "x-interlock-class"
DROPPED = "[not stored]"

_STRICTNESS: tuple[Treatment, ...] = ("keep", "last4", "token", "drop")
_SECRET = "secret"  # noqa: S105  # the name of a class of fields
_BY_CLASS: Mapping[str, Treatment] = MappingProxyType(
    {"pii": "token", "financial": "last4", "free_text": "drop", _SECRET: "drop"}
)
_LAST = 4
_MAX_REFERENCES = 8


def redacted_arguments(arguments: JsonObject, tool: ToolVersion, *, key: bytes) -> JsonObject:
    """Return arguments as they may be shown: what their contract classes is dropped or a token."""
    shown = _redacted(
        arguments, [tool.input_schema], root=tool.input_schema, rules=_rules(tool), key=key
    )
    return shown if isinstance(shown, dict) else {}


def redacted_effect(effect: Effect, tool: ToolVersion | None, *, key: bytes) -> Effect:
    """Return an effect as it may be shown; without its contract nothing is known to be harmless."""
    if tool is None:
        return replace(effect, arguments={}, result=None)
    result = _redacted(
        effect.result, [tool.output_schema], root=tool.output_schema, rules=_rules(tool), key=key
    )
    return replace(
        effect, arguments=redacted_arguments(effect.arguments, tool, key=key), result=result
    )


def write_arguments(tx: Tx, effect: Effect, tool: ToolVersion, *, key: bytes | None = None) -> None:
    """Store the arguments of a call; `key` makes tokens, without it such values are dropped."""
    rules = _rules(tool)
    content = _redacted(
        effect.arguments, [tool.input_schema], root=tool.input_schema, rules=rules, key=key
    )
    bodies.put(tx, effect.run_id, effect.step_name, ARGUMENTS, content)


def write_result(tx: Tx, effect: Effect, tool: ToolVersion, *, key: bytes | None = None) -> None:
    """Store the output that satisfied the contract; `key` as for `write_arguments`."""
    rules = _rules(tool)
    content = _redacted(
        effect.result, [tool.output_schema], root=tool.output_schema, rules=rules, key=key
    )
    bodies.put(tx, effect.run_id, effect.step_name, RESULT, content)


def list_for_run(tx: Tx, run_id: RunId) -> dict[str, dict[str, Json]]:
    """Return the stored content of a run: span key -> part (`arguments`, `result`) -> value."""
    found: dict[str, dict[str, Json]] = {}
    for body in bodies.list_for_run(tx, run_id):
        found.setdefault(body.span_key, {})[body.part] = body.content
    return found


def _rules(tool: ToolVersion) -> Mapping[str, Treatment]:
    # An unknown class is treated like a secret; what the manifest names comes on top.
    return {**_BY_CLASS, **tool.redact, _SECRET: "drop"}


def _redacted(
    value: Json,
    schemas: list[JsonObject],
    *,
    root: JsonObject,
    rules: Mapping[str, Treatment],
    key: bytes | None,
    name: str = "",
) -> Json:
    parts = [part for schema in schemas for part in _expanded(schema, root)]
    treatment = _treatment(name, parts, rules)
    if treatment != "keep":
        return _treated(value, treatment, key)
    if isinstance(value, dict):
        return {
            member: _redacted(
                item, _members(parts, member), root=root, rules=rules, key=key, name=member
            )
            for member, item in value.items()
        }
    if isinstance(value, list):
        inner = _items(parts)
        return [_redacted(item, inner, root=root, rules=rules, key=key) for item in value]
    return value


def _treatment(name: str, parts: list[JsonObject], rules: Mapping[str, Treatment]) -> Treatment:
    classes = {str(part[CLASS_KEY]) for part in parts if CLASS_KEY in part}
    if _SECRET in classes:
        return "drop"
    if name in rules and name not in _BY_CLASS:
        return rules[name]
    found: list[Treatment] = [rules.get(each, "drop") for each in classes]
    return max(found, key=_STRICTNESS.index, default="keep")


def _treated(value: Json, treatment: Treatment, key: bytes | None) -> Json:
    if value is None:
        return None
    if treatment == "token" and key is not None:
        mark = hmac.new(key, b"body\x1f" + canonical(value), hashlib.sha256).hexdigest()
        return f"token:{mark[:16]}"
    if treatment == "last4":
        text = value if isinstance(value, str) else str(value) if isinstance(value, int) else ""
        # Of a short value the last four characters would be most of it.
        return f"…{text[-_LAST:]}" if len(text) >= 2 * _LAST else DROPPED
    return DROPPED


def _expanded(schema: JsonObject, root: JsonObject) -> list[JsonObject]:
    """Return a schema with everything that applies beside it: references and branches."""
    found: list[JsonObject] = []
    pending: list[tuple[JsonObject, int]] = [(schema, 0)]
    while pending:
        part, depth = pending.pop()
        found.append(part)
        if depth == _MAX_REFERENCES:
            continue
        branches: list[Json] = []
        for keyword in ("allOf", "anyOf", "oneOf"):
            listed = part.get(keyword)
            branches.extend(listed if isinstance(listed, list) else [])
        branches.extend(part.get(keyword) for keyword in ("if", "then", "else"))
        dependent = part.get("dependentSchemas")
        branches.extend(dependent.values() if isinstance(dependent, dict) else [])
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            branches.append(_referenced(root, reference[1:]))
        pending.extend((branch, depth + 1) for branch in _objects(branches))
    return found


def _referenced(root: JsonObject, pointer: str) -> Json:
    try:
        return read(root, pointer)
    except InputError:
        return None


def _members(parts: list[JsonObject], member: str) -> list[JsonObject]:
    found: list[Json] = []
    for part in parts:
        properties = part.get("properties")
        if isinstance(properties, dict) and member in properties:
            found.append(properties[member])
        else:
            found.extend(
                part.get(rest) for rest in ("additionalProperties", "unevaluatedProperties")
            )
        patterns = part.get("patternProperties")
        found.extend(patterns.values() if isinstance(patterns, dict) else [])
    return _objects(found)


def _items(parts: list[JsonObject]) -> list[JsonObject]:
    """Return all schemas of items: each item is treated as the strictest of them says."""
    found: list[Json] = []
    for part in parts:
        found.extend(part.get(keyword) for keyword in ("items", "contains", "unevaluatedItems"))
        listed = part.get("prefixItems")
        found.extend(listed if isinstance(listed, list) else [])
    return _objects(found)


def _objects(values: list[Json]) -> list[JsonObject]:
    return [value for value in values if isinstance(value, dict)]
