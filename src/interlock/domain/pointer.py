"""Pointers into documents, `<source>:<RFC 6901 pointer>`: the only expressions in manifests."""

from __future__ import annotations

import re
from collections.abc import Mapping

from interlock.domain.canonical import Json
from interlock.domain.errors import InputError

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def read(document: Json, pointer: str) -> Json:
    """Return the value at an RFC 6901 pointer; raises `InputError` if there is none.

    >>> read({"a": [1, {"b": 2}]}, "/a/1/b")
    2
    """
    if pointer and not pointer.startswith("/"):
        msg = f"a pointer starts with `/`, got `{pointer}`"
        raise InputError(msg)
    value = document
    for key in parts_of(pointer):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            msg = f"there is nothing at `{pointer}`"
            raise InputError(msg)
    return value


def parts_of(pointer: str) -> tuple[str, ...]:
    """Return the names that a pointer leads along.

    >>> parts_of("/a/b~1c")
    ('a', 'b/c')
    """
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def escaped(name: str) -> str:
    """Return a name as it stands in a pointer.

    >>> escaped("b/c")
    'b~1c'
    """
    return name.replace("~", "~0").replace("/", "~1")


def are_nested(one: str, other: str) -> bool:
    """Return whether two pointers name the same place, or one a place inside the other's.

    >>> are_nested("/a", "/a/b"), are_nested("/a", "/ab")
    (True, False)
    """
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def fill(template: Json, documents: Mapping[str, Json], *, optional: bool = False) -> Json:
    """Replace each string `<source>:<pointer>` whose source is a key of `documents`.

    A string is either a whole pointer or a literal; `literal:` before a text keeps it as it is.
    With `optional`, object members whose pointer finds nothing are left out.

    >>> fill({"t": "in:/title", "p": "high"}, {"in": {"title": "VPN"}})
    {'t': 'VPN', 'p': 'high'}
    """
    if isinstance(template, str):
        source, colon, rest = template.partition(":")
        if colon and source == "literal":
            return rest
        if colon and source in documents:
            return read(documents[source], rest if rest.startswith("/") or not rest else f"/{rest}")
        return template
    if isinstance(template, list):
        return [fill(item, documents, optional=optional) for item in template]
    if isinstance(template, dict):
        filled: dict[str, Json] = {}
        for key, item in template.items():
            try:
                filled[key] = fill(item, documents, optional=optional)
            except InputError:
                if not optional:
                    raise
        return filled
    return template
