from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.domain.clock import from_us, iso, to_us


@given(st.datetimes(timezones=st.just(UTC)))
def test_moment_survives_as_microseconds(moment: datetime) -> None:
    """Microseconds hold a moment exactly, before 1970 too."""
    assert moment == from_us(to_us(moment))


def test_zone_does_not_change_the_moment() -> None:
    """The same moment in another zone is the same number."""
    zone = timezone(timedelta(hours=2))

    assert 0 == to_us(datetime(1970, 1, 1, 2, tzinfo=zone))


def test_naive_moment_is_refused() -> None:
    """A time without a zone is not guessed at."""
    with pytest.raises(ValueError, match="a moment needs a time zone, got `2026-01-01 00:00:00`"):
        to_us(datetime(2026, 1, 1))  # noqa: DTZ001  # what is refused


def test_rendered_moment_has_milliseconds_and_zone() -> None:
    """RFC 3339 with exactly three digits and `Z`, so that texts sort as moments do."""
    assert "2026-03-01T12:00:00.000Z" == iso(to_us(datetime(2026, 3, 1, 12, tzinfo=UTC)))
    assert "1970-01-01T00:00:00.001Z" == iso(1_999)
