"""Values that do not fit the form of a project file, as problems that name line and fix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from pydantic import ValidationError

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import Problem, did_you_mean
from interlock.domain.principal import PERSON_NAME
from interlock.manifest import scalars
from interlock.manifest import schema as form
from interlock.manifest.files import Document, Place

WORDS: Mapping[str, str] = {
    scalars.NAME: "should be lower case letters and digits, words joined by `_`",
    scalars.DASHED: "should be lower case letters and digits, words joined by `-` or `_`",
    scalars.TOOL: "should be `<system>.<noun>.<verb>` in lower case",
    scalars.QUEUE: "should be the name of a subject, stream or queue, without spaces",
    scalars.TOOL_VERSION: "should be `<tool>@<version>`",
    PERSON_NAME: "should be a name as keys have it: lower case letters, digits, `.`, `_`, `@`, `-`",
}
"""What the patterns of names mean, for messages."""


def editor_schema(kind: str) -> JsonObject:
    """Return the JSON Schema 2020-12 of one kind of project file, as editors use it."""
    schema: JsonObject = form.KINDS[kind].model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def misfits(document: Document, kind: str, error: ValidationError) -> Iterator[Problem]:
    """Yield what does not fit the form of a project file, in our words, with the line."""
    for item in cast("Iterable[dict[str, Any]]", error.errors(include_url=False)):
        place = tuple(part for part in item["loc"] if part != "[key]")
        name, given = ".".join(map(str, place)), item["input"]
        fix = None
        match item["type"]:
            case "extra_forbidden":
                message = f"unknown key `{name}`"
                fix = did_you_mean(str(place[-1]), _known_keys(kind, place[:-1]))
            case "missing":
                message, fix = f"`{name}` is missing", _described(kind, place)
            case "literal_error" | "enum":
                message = f"`{name}` should be {item['ctx']['expected']}, got `{given}`"
                fix = did_you_mean(str(given), re.findall("'([^']+)'", item["ctx"]["expected"]))
            case "string_pattern_mismatch":
                pattern = item["ctx"]["pattern"]
                wanted = WORDS.get(pattern, f"should match `{pattern}`")
                message = f"`{name}` {wanted}, got `{str(given)[:80]}`"
            case _:
                text = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
                is_secret = not {"credentials", "secret"}.isdisjoint(place)
                shown = "" if is_secret else f", got `{str(given)[:80]}`"
                message = f"`{name}` {text[:1].lower()}{text[1:]}{shown}"
        yield document.problem(place, message, fix)


def _known_keys(kind: str, place: Place) -> list[str]:
    properties = _form_at(kind, place).get("properties")
    return list(properties) if isinstance(properties, dict) else []


def _described(kind: str, place: Place) -> str | None:
    text = _form_at(kind, place).get("description")
    return text.replace("\n", " ").rstrip(".").lower() if isinstance(text, str) else None


def _form_at(kind: str, place: Place) -> JsonObject:
    root = editor_schema(kind)
    node = _only(root, root)
    for part in place:
        properties = node.get("properties")
        if isinstance(part, int):
            inner = node.get("items")
        elif isinstance(properties, dict) and part in properties:
            inner = properties[part]
        else:
            inner = node.get("additionalProperties")
        node = _only(root, inner)
    return node


def _only(root: JsonObject, node: Json) -> JsonObject:
    """Follow a reference, and of alternatives take the one that is an object of ours."""
    if not isinstance(node, dict):
        return {}
    choices = node.get("anyOf")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("type") != "null":
            node = {**choice, **({"description": d} if (d := node.get("description")) else {})}
            break
    definitions = root.get("$defs")
    name = str(node.get("$ref", "")).removeprefix("#/$defs/")
    if isinstance(definitions, dict) and isinstance(found := definitions.get(name), dict):
        return {**found, **node}
    return node
