"""Strict JSON in, canonical JSON (RFC 8785) out, and digests over it: one parser for every door."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from typing import NoReturn

import rfc8785
from typing_extensions import TypeAliasType

from interlock.domain.errors import JsonError

# A named alias, as pydantic and FastAPI unroll a nameless recursive one without end.
Json = TypeAliasType("Json", "bool | int | float | str | list[Json] | dict[str, Json] | None")
JsonObject = dict[str, Json]

MAX_DEPTH = 32
MAX_SAFE_INTEGER = 2**53
DEFAULT_MAX_BYTES = 4 * 1024 * 1024


def parse(data: bytes | str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Json:
    """Parse strict JSON.

    Refused with `JsonError`: invalid UTF-8, trailing bytes, duplicate keys (also those equal after
    NFKC and case folding), NaN, infinities, numbers that overflow, -0, integers beyond 2^53,
    more than 32 levels, more than `max_bytes` bytes, lone surrogates.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(raw) > max_bytes:
        msg = f"the JSON text has {len(raw)} bytes, at most {max_bytes} are accepted"
        raise JsonError(msg)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = f"the JSON text is not UTF-8 at byte {error.start}"
        raise JsonError(msg) from None
    _check_depth(text)
    try:
        value: Json = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except json.JSONDecodeError as error:
        msg = f"not JSON at line {error.lineno}, column {error.colno}: {error.msg.lower()}"
        raise JsonError(msg) from None
    _check_strings(value)
    return value


def canonical(value: Json) -> bytes:
    """Return the canonical form (RFC 8785) of a JSON value; raises `JsonError` if it has none."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        msg = f"the value has no canonical form: {str(error) or type(error).__name__}"
        raise JsonError(msg) from None


def canonical_text(value: Json) -> str:
    """Return the canonical form as text, as it is stored in rows."""
    return canonical(value).decode()


def digest(value: Json) -> str:
    """Return `sha256:` and 64 hex digits over the canonical form of a value."""
    return digest_bytes(canonical(value))


def digest_bytes(data: bytes) -> str:
    """Return `sha256:` and 64 hex digits over raw bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _check_depth(text: str) -> None:
    depth, in_string, is_escaped = 0, False, False
    for char in text:
        if in_string:
            if is_escaped:
                is_escaped = False
            elif char == "\\":
                is_escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                msg = f"the JSON text is nested deeper than {MAX_DEPTH} levels"
                raise JsonError(msg)
        elif char in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Json]]) -> JsonObject:
    result: JsonObject = {}
    folded: dict[str, str] = {}
    for key, value in pairs:
        form = unicodedata.normalize("NFKC", key).casefold()
        if form in folded:
            msg = f"the keys `{folded[form]}` and `{key}` are the same key"
            raise JsonError(msg)
        folded[form] = key
        result[key] = value
    return result


def _constant(text: str) -> NoReturn:
    msg = f"`{text}` is not a JSON number"
    raise JsonError(msg)


def _integer(text: str) -> int:
    if text == "-0":
        _constant(text)
    if len(text) > 17 or abs(int(text)) > MAX_SAFE_INTEGER:  # noqa: PLR2004  # digits of 2^53, a sign
        msg = f"the integer `{text[:24]}` is beyond 2^53"
        raise JsonError(msg)
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")) or (number == 0 and text.startswith("-")):
        _constant(text[:24])
    return number


def _check_strings(value: Json) -> None:
    if isinstance(value, str):
        if any("\ud800" <= char <= "\udfff" for char in value):
            msg = "a string holds half of a surrogate pair"
            raise JsonError(msg)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_strings(key)
            _check_strings(item)
