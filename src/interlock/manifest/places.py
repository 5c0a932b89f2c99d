"""Pointers in project files: which sources templates may use, and whether they can find it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from interlock.domain.canonical import Json, JsonObject
from interlock.manifest.files import Place
from interlock.tools.places import has_place

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
