"""Time as values: aware UTC and integer microseconds; reading a clock is for other rooms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Tells the time in microseconds since 1970-01-01 UTC."""

    def now_us(self) -> int:
        """Return now in microseconds."""
        ...


def to_us(moment: datetime) -> int:
    """Convert an aware datetime to microseconds since the epoch; raises ValueError if naive.

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if moment.tzinfo is None:
        msg = f"a moment needs a time zone, got `{moment}`"
        raise ValueError(msg)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(at_us: int) -> datetime:
    """Convert microseconds since the epoch to an aware UTC datetime."""
    return _EPOCH + timedelta(microseconds=at_us)


def iso(at_us: int) -> str:
    """Render microseconds as RFC 3339 in UTC, to the millisecond.

    >>> iso(1_000_000)
    '1970-01-01T00:00:01.000Z'
    """
    return from_us(at_us).isoformat(timespec="milliseconds").replace("+00:00", "Z")
