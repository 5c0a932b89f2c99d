"""URI templates of resources: `{name}` stands for one whole value, percent-encoded completely.

At most one stands in a part of the path, so that reading a URI takes no more time than it is long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, unquote

from interlock.domain.errors import InputError

_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SEPARATOR = re.compile(r"[/\\]")
_SEGMENTS = frozenset({".", ".."})
_LONGEST = 8 * 1024


def variables(template: str) -> tuple[str, ...]:
    """Return the names in a template, in order; raises `InputError` for any other expression.

    >>> variables("notes://{team}/{note}"), variables("notes://all")
    (('team', 'note'), ())
    """
    names = tuple(_EXPRESSION.findall(template))
    plain = _EXPRESSION.sub("", template)
    if "{" in plain or "}" in plain or not all(map(_NAME.fullmatch, names)):
        raise InputError(f"`{template}` is no URI with `{{name}}` for what varies")
    if len(set(names)) != len(names):
        raise InputError(f"`{template}` has a name twice")
    if not all("/" in between for between in _EXPRESSION.split(template)[2:-1:2]):
        raise InputError(f"`{template}` has two names in one part of its path")
    return names


def expand(template: str, values: Mapping[str, str]) -> str:
    """Return the URI of these values; raises `InputError` for one that would move its path.

    >>> expand("notes://{team}/{note}", {"team": "it", "note": "a/b"})
    'notes://it/a%2Fb'
    """
    given = {name: values.get(name, "") for name in variables(template)}
    for name, value in given.items():
        if not value or _SEGMENTS & set(_SEPARATOR.split(value)):
            raise InputError(f"`{name}` cannot be `{value}` in `{template}`")
    return _EXPRESSION.sub(lambda found: quote(given[found[1]], safe=""), template)


def match(template: str, uri: str) -> dict[str, str] | None:
    """Return the values that make this URI, None if none do.

    >>> match("notes://{team}/{note}", "notes://it/a%2Fb")
    {'team': 'it', 'note': 'a/b'}
    >>> match("notes://{team}", "notes://it/a") is None
    True
    """
    found = _pattern(template).fullmatch(uri) if len(uri) <= _LONGEST else None
    return None if found is None else {k: unquote(v) for k, v in found.groupdict().items()}


@lru_cache(maxsize=1024)
def _pattern(template: str) -> re.Pattern[str]:
    parts = _EXPRESSION.split(template)
    names = parts[1::2]
    ends = map(re.escape, parts[2::2])
    wanted = (f"(?P<{name}>[^/?#]+){end}" for name, end in zip(names, ends, strict=True))
    return re.compile(re.escape(parts[0]) + "".join(wanted))
