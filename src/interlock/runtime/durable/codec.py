"""What may be put into the journal: plain JSON of bounded size, and errors as code and message."""

from __future__ import annotations

import math

from interlock.domain.canonical import (
    MAX_DEPTH,
    MAX_KEPT_BYTES,
    MAX_SAFE_INTEGER,
    Json,
    JsonObject,
    canonical,
    has_half_pair,
)
from interlock.domain.errors import InputError, InterlockError, StepFailedError
from interlock.domain.ids import StepName


def checked(value: object, *, what: str) -> Json:
    """Return a value as plain JSON (tuples become lists); `what` names it in the error.

    Raises `InputError` with the pointer of the first part that is not JSON: another type, a number
    that is not finite or an integer beyond 2^53, a key that is not text, more than 32 levels; or
    if the whole has more than 1 MiB.
    """
    plain = _plain(value, what, "", 0)
    size = len(canonical(plain))
    if size > MAX_KEPT_BYTES:
        raise InputError(
            f"{what} has {size} bytes, at most {MAX_KEPT_BYTES} are kept; return a reference"
        )
    return plain


def error_to_json(error: InterlockError) -> JsonObject:
    """Return the recorded form of an error: `code` and `message`."""
    code = error.error_code if isinstance(error, StepFailedError) else error.code
    return {"code": code, "message": error.message}


def error_from_json(recorded: JsonObject, step_name: StepName) -> StepFailedError:
    """Return the error that every replay of a failed step raises."""
    return StepFailedError(
        str(recorded["message"]), error_code=str(recorded["code"]), step_name=step_name
    )


def _plain(value: object, what: str, at: str, depth: int) -> Json:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        # An enum's member becomes its text, as which it would come back.
        return _text(str.__str__(value), what, at)
    if type(value) is int and abs(value) <= MAX_SAFE_INTEGER:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, list | tuple | dict) and depth >= MAX_DEPTH:
        raise InputError(f"{what} is nested deeper than {MAX_DEPTH} levels at `{at}`")
    if isinstance(value, list | tuple):
        return [_plain(item, what, f"{at}/{i}", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {
            _key(key, what, at): _plain(item, what, f"{at}/{key}", depth + 1)
            for key, item in value.items()
        }
    raise InputError(f"{what} is not JSON at `{at or '/'}`: got a `{type(value).__name__}`")


def _key(key: object, what: str, at: str) -> str:
    if type(key) is not str:
        raise InputError(f"{what} has the key `{key}` at `{at or '/'}`, which is not text")
    return _text(key, what, at)


def _text(text: str, what: str, at: str) -> str:
    if has_half_pair(text):
        raise InputError(f"{what} holds half of a surrogate pair at `{at or '/'}`")
    return text
