"""Rates in the store: what fits is counted once, what does not is told when to ask again."""

from __future__ import annotations

from interlock.domain.tool import Rate
from interlock.store import rates
from interlock.store.engine import Database
from interlock.testing.clock import START_US, ManualClock
from tests.conformance.store_race import both
from tests.conformance.store_rows import SECOND_US

THREE = Rate(calls=3, per_s=6.0)
ONE = Rate(calls=1, per_s=10.0)


def take(db: Database, **wanted: Rate) -> int | None:
    """Count one call; return after how many seconds to ask again, None if it is counted."""
    until_us = db.run("take", lambda tx: rates.take(tx, wanted))
    return None if until_us is None else round((until_us - START_US) / SECOND_US)


def test_so_many_fit_in_a_row_and_then_one_after_the_other(
    db: Database, clock: ManualClock
) -> None:
    """Those who come too soon get different times; a pause makes room for a row again."""
    row = [take(db, a=THREE) for _ in range(3)]
    early = [take(db, a=THREE) for _ in range(3)]
    clock.advance(2)
    later = [take(db, a=THREE), take(db, a=THREE) is None]
    clock.advance(60)
    again = [take(db, a=THREE) for _ in range(3)]

    assert [None] * 3 == row
    assert [2, 4, 6] == early
    assert [None, False] == later
    assert [None] * 3 == again


def test_a_call_counts_under_all_its_rates_or_under_none(db: Database) -> None:
    """What waits for one rate uses up no other."""
    first = take(db, a=ONE, b=THREE)
    refused = [take(db, a=ONE, b=THREE) for _ in range(3)]
    others = [take(db, b=THREE) for _ in range(2)]

    assert None is first
    assert [10, 20, 30] == refused
    assert [None, None] == others


def test_no_rate_is_no_limit(db: Database) -> None:
    """A call under no rate costs nothing."""
    assert None is take(db)


def test_last_place_in_a_period_is_given_once(db: Database) -> None:
    """Of two calls at the same time one is told to wait."""
    found = both(db, lambda tx: rates.take(tx, {"a": ONE}))

    assert 1 == found.count(None)
