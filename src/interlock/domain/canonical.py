"""Strict JSON in, canonical JSON (RFC 8785) out, and digests over it: one parser for every door."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from typing import NoReturn

import rfc8785
from typing_extensions import TypeAliasType

from interlock.domain.errors import JsonError

# A named alias, as pydantic and FastAPI unroll a nameless recursive one without end.
Json = TypeAliasType("Json", "bool | int | float | str | list[Json] | dict[str, Json] | None")
JsonObject = dict[str, Json]

MAX_DEPTH = 32
MAX_SAFE_INTEGER = 2**53 - 1
"""The largest number, whole or not, that every reader of JSON keeps apart from the next one."""
DEFAULT_MAX_BYTES = 4 * 1024 * 1024
MAX_KEPT_BYTES = 1024 * 1024
"""The longest canonical form of a value that is kept: what a step, a signal or a run gives."""
MAX_RESULT_BYTES = 1_000_000
"""The longest result of a tool call, which is kept together with how the call ended."""


def parse(data: bytes | str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Json:
    """Parse strict JSON.

    Refused with `JsonError`: invalid UTF-8, trailing bytes, duplicate keys (also those equal after
    NFKC and case folding), NaN, infinities, numbers beyond 2^53 - 1, -0, more than 32 levels, more
    than `max_bytes` bytes, lone surrogates, U+0000. Whatever it accepts has a canonical form, and
    parses from that form to an equal value.
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
    _check_depth(text, MAX_DEPTH)
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
        if _is_plain(value):
            # The same bytes, a dozen times faster: most of what is stored is of this kind.
            return _PLAIN.encode(value).encode()
        return rfc8785.dumps(value)
    except (ValueError, RecursionError) as error:
        msg = f"the value has no canonical form: {str(error) or type(error).__name__}"
        raise JsonError(msg) from None


_PLAIN = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


_ALWAYS_PLAIN = frozenset({str, bool, type(None)})


def _is_plain(value: object) -> bool:
    """Whether only spaces and the order of ASCII keys keep Python's JSON from being canonical."""
    # Loops, and few calls, since this looks at all that is ever stored.
    if type(value) in _ALWAYS_PLAIN:
        return True
    if isinstance(value, int):
        return -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER
    if isinstance(value, dict):
        for key, item in value.items():
            if not (isinstance(key, str) and key.isascii()):
                return False
            if type(item) not in _ALWAYS_PLAIN and not _is_plain(item):
                return False
        return True
    if isinstance(value, list):
        for item in value:  # noqa: SIM110  # as above
            if type(item) not in _ALWAYS_PLAIN and not _is_plain(item):
                return False
        return True
    return isinstance(value, str)


def canonical_text(value: Json) -> str:
    """Return the canonical form as text, as it is stored in rows."""
    return canonical(value).decode()


def check_result(value: Json) -> None:
    """Raise `JsonError` if a result of a tool call is too deep or too large to be kept."""
    text = canonical_text(value)
    # One level is the call's, around it.
    _check_depth(text, MAX_DEPTH - 1)
    size = len(text.encode())
    if size > MAX_RESULT_BYTES:
        msg = f"the JSON text has {size} bytes, at most {MAX_RESULT_BYTES} are kept"
        raise JsonError(msg)


def digest(value: Json) -> str:
    """Return `sha256:` and 64 hex digits over the canonical form of a value."""
    return digest_bytes(canonical(value))


def digest_bytes(data: bytes) -> str:
    """Return `sha256:` and 64 hex digits over raw bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _check_depth(text: str, most: int) -> None:
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
            if depth > most:
                msg = f"the JSON text is nested deeper than {most} levels"
                raise JsonError(msg)
        elif char in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Json]]) -> JsonObject:
    result: JsonObject = {}
    folded: dict[str, str] = {}
    for key, value in pairs:
        _check_string(key)
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
    # Length first: reading thousands of digits takes quadratic time.
    if len(text) > len(f"-{MAX_SAFE_INTEGER}"):
        _too_large(text)
    number = int(text)
    if abs(number) > MAX_SAFE_INTEGER:
        _too_large(text)
    return number


def _float(text: str) -> float:
    number = float(text)
    if number == 0 and text.startswith("-"):
        _constant(text[:24])
    # The canonical form of 1e16 is a whole number, to which the limit applies again.
    if abs(number) > MAX_SAFE_INTEGER:
        _too_large(text)
    return number


def _too_large(text: str) -> NoReturn:
    msg = f"the number `{text[:24]}` is beyond 2^53 - 1"
    raise JsonError(msg)


_HALF_PAIR = re.compile("[\ud800-\udfff]")


def has_half_pair(text: str) -> bool:
    """Return whether a text holds half of a surrogate pair, which no encoding has."""
    return not text.isascii() and _HALF_PAIR.search(text) is not None


def _check_strings(value: Json) -> None:
    if isinstance(value, str):
        _check_string(value)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            _check_strings(item)


def _check_string(text: str) -> None:
    if has_half_pair(text):
        msg = "a string holds half of a surrogate pair"
        raise JsonError(msg)
    if "\0" in text:
        msg = "a string holds U+0000, which no database stores; leave it out"
        raise JsonError(msg)
