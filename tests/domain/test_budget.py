"""Budgets: windows by the calendar of a department, and the pace of what is spent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from interlock.domain.budget import Budget, BudgetPeriod, Standing, Window

HOUR_US = 3_600_000_000


def us(text: str) -> int:
    """Return a moment of UTC in microseconds."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)


def budget(period: BudgetPeriod) -> Budget:
    """Return a budget of a department in Paris."""
    return Budget(
        name="paris",
        title="Paris",
        scope="department",
        of="it",
        period=period,
        unit="calls",
        limit=100,
        soft=80,
        timezone="Europe/Paris",
    )


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        ("hour", "2026-03-29T00:30", "2026-03-29T00:00", "2026-03-29T01:00"),
        ("day", "2026-03-29T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("day", "2026-10-25T00:30", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("day", "2026-10-25T22:59", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("month", "2026-03-31T22:00", "2026-03-31T22:00", "2026-04-30T22:00"),
        ("month", "2026-12-31T12:00", "2026-11-30T23:00", "2026-12-31T23:00"),
    ],
)
def test_days_and_months_are_those_of_the_time_zone(
    period: BudgetPeriod, now: str, start: str, end: str
) -> None:
    """A day in which clocks change has 23 or 25 hours, and still one beginning."""
    assert Window(start_us=us(start), end_us=us(end)) == budget(period).window_at(us(now))


def test_forecast_says_what_is_spent_in_the_end_and_when_the_limit_is_reached() -> None:
    """At the pace so far; None if the window ends before the limit, and if it never ends."""
    window = Window(start_us=0, end_us=24 * HOUR_US)
    fast, slow = (
        Standing(budget=budget("day"), account="it", window=window, spent=spent)
        for spent in (50, 5)
    )

    assert 12 * HOUR_US == fast.reached_us(6 * HOUR_US)
    assert slow.reached_us(6 * HOUR_US) is None
    assert (200, 20) == (fast.forecast(6 * HOUR_US), slow.forecast(6 * HOUR_US))
    assert 70 == replace(slow, reserved=65).forecast(6 * HOUR_US)
    assert replace(fast, window=Window(start_us=0, end_us=None)).forecast(HOUR_US) is None
