"""How a call becomes a statement: its text was reviewed, arguments can fill parameters only."""

from __future__ import annotations

import re
from collections.abc import Iterator

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.domain.pointer import fill
from interlock.domain.tool import SqlQuery

_PARAMETER = re.compile(r"%(?:\(([A-Za-z_][A-Za-z0-9_]*)\)s|(%)|)")
_COMMENTS = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_READS = re.compile(_COMMENTS + r"(select|with|values|table)\b", re.IGNORECASE | re.DOTALL)


def check_query(query: SqlQuery) -> Iterator[str]:
    """Yield what is wrong with a declared query, as sentences.

    >>> list(check_query(SqlQuery(statement="delete from sale")))
    ['a statement begins with SELECT, WITH, VALUES or TABLE']
    """
    if _READS.match(query.statement) is None:
        yield "a statement begins with SELECT, WITH, VALUES or TABLE"
    used: set[str] = set()
    for match in _PARAMETER.finditer(query.statement):
        if match[1] is not None:
            used.add(match[1])
        elif match[2] is None:
            yield "a `%` stands before the name of a parameter, as `%(name)s`, or is written `%%`"
    for name in sorted(used - query.parameters.keys()):
        yield f"`parameters` does not say what `%({name})s` is"
    for name in sorted(query.parameters.keys() - used):
        yield f"the parameter `{name}` is not in the statement"


def parameters_of(
    query: SqlQuery, arguments: JsonObject, *, effect_id: str, key: str
) -> JsonObject:
    """Return the value of each parameter, null for what is not given.

    Raises `InputError` for a value that no column can have.
    """
    effect: JsonObject = {"id": effect_id, "key": key}
    documents: dict[str, Json] = {"in": arguments, "effect": effect}
    filled = fill(dict(query.parameters), documents, optional=True)
    # INVARIANT: a template that is an object is filled to one.
    assert isinstance(filled, dict)
    return {name: _scalar(name, filled.get(name)) for name in query.parameters}


def _scalar(name: str, value: Json) -> Json:
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, dict | list) for part in parts):
        raise InputError(f"the parameter `{name}` is neither a scalar nor a list of scalars")
    if any(isinstance(part, str) and "\0" in part for part in parts):
        raise InputError(f"the parameter `{name}` has a character that no text may have (NUL)")
    return value
