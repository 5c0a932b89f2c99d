"""How nouns become columns and come back: JSON text, seats and labels."""

from __future__ import annotations

import json
from functools import lru_cache

from interlock.domain.canonical import Json, JsonObject, canonical_text
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.record import from_json, object_to_json


def pack(value: Json) -> str:
    """Return the canonical text of a JSON value."""
    return canonical_text(value)


def pack_optional(value: Json) -> str | None:
    """Return the canonical text of a JSON value, SQL's null for null."""
    return None if value is None else canonical_text(value)


def unpack(text: str | None) -> Json:
    """Return the value of a JSON column that we wrote; SQL's null is null."""
    if text is None:
        return None
    value: Json = json.loads(text)
    return value


def unpack_object(text: str) -> JsonObject:
    """Return the value of a JSON column that always holds an object."""
    value = unpack(text)
    # INVARIANT: only `pack` of an object is written to such a column.
    assert isinstance(value, dict)
    return value


def unpack_texts(text: str) -> tuple[str, ...]:
    """Return the value of a JSON column that always holds a list of strings."""
    value = unpack(text)
    # INVARIANT: only `pack` of a list is written to such a column.
    assert isinstance(value, list)
    return tuple(map(str, value))


@lru_cache(maxsize=1_000)
def pack_seats(seats: tuple[Seat, ...]) -> str:
    """Return a chain of seats as JSON text, order kept."""
    return pack([str(seat) for seat in seats])


@lru_cache(maxsize=1_000)
def unpack_seats(text: str) -> tuple[Seat, ...]:
    """Read back what `pack_seats` wrote."""
    return tuple(map(Seat.parse, unpack_texts(text)))


def pack_labels(labels: Labels) -> str:
    """Return labels as JSON text."""
    return pack(object_to_json(labels))


@lru_cache(maxsize=1_000)
def unpack_labels(text: str) -> Labels:
    """Read back what `pack_labels` wrote."""
    return from_json(Labels, unpack(text))
