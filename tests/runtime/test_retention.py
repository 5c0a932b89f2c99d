"""Deleting what nobody needs any more: by one process, a little at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from interlock.domain.ids import ExecutorId, RunId
from interlock.runtime.retention import HINTS_KEPT_S, MOST_ROWS, Retention
from interlock.store import counts, leases, runs
from interlock.store.counts import Counted
from interlock.store.engine import Database
from interlock.testing.clock import ManualClock
from tests.conformance.store_rows import TENANT, TOOL, ended

ME, OTHER = ExecutorId("me"), ExecutorId("other")
DAY_S = 86_400.0


def no_hints(_older_than_s: float, _limit: int) -> int:
    """Find no hint to delete."""
    return 0


def left(db: Database) -> list[RunId]:
    """Return the runs that there are."""
    with db.reading() as tx:
        return [run.run_id for run in runs.list_runs(tx)]


@pytest.mark.parametrize(("days", "kept"), [(None, ["old", "young"]), (7, ["young"])])
def test_runs_are_deleted_after_the_time_that_is_set(
    db: Database, clock: ManualClock, days: int | None, kept: list[str]
) -> None:
    """Without a time they are kept for ever."""
    made = {"old": ended(db, "old")}
    clock.advance(7 * DAY_S + 1)
    made["young"] = ended(db, "young")

    assert Retention(db, ME, clear_hints=no_hints, days=days).run_once()
    assert {made[name] for name in kept} == set(left(db))


def test_counts_by_the_minute_are_deleted_after_two_hours(db: Database, clock: ManualClock) -> None:
    """Also where runs are kept for ever: no policy asks for them any more."""
    counted = Counted(tenant=TENANT, workflow="w", environment="dev", tool=TOOL)
    db.run("test", lambda tx: counts.add(tx, counted, tx.now_us, 1))

    found: list[int] = []
    for pause_s in (7_140, 61):
        clock.advance(pause_s)
        assert Retention(db, ME, clear_hints=no_hints, days=None).run_once()
        with db.reading() as tx:
            found.append(counts.since(tx, counted, 0))

    assert [1, 0] == found


def test_only_the_leader_deletes(db: Database, clock: ManualClock) -> None:
    """Another process does when the leader has not been heard of for two rounds."""
    ended(db, "old")
    clock.advance(8 * DAY_S)
    db.run("test", lambda tx: leases.take_leadership(tx, "retention", OTHER, 60_000_000))
    mine = Retention(db, ME, clear_hints=no_hints, days=7)

    is_led = [mine.run_once()]
    kept = len(left(db))
    clock.advance(61)
    is_led.append(mine.run_once())

    assert ([False, True], 1, []) == (is_led, kept, left(db))


def test_slow_deletions_become_smaller(db: Database) -> None:
    """So that no writer waits for longer than a tenth of a second, as far as it can be helped."""
    asked: list[tuple[float, int]] = []
    takes_s = iter([0.0, 0.01, 0.01, 0.09, 0.09, 0.18, 0.18, 0.20, 0.20, 0.20])

    def clear(older_than_s: float, limit: int) -> int:
        asked.append((older_than_s, limit))
        return limit if len(asked) < 5 else 0

    tick: Callable[[], float] = lambda: next(takes_s)  # noqa: E731  # typed for the argument

    assert Retention(db, ME, clear_hints=clear, days=None, clock=tick).run_once()
    assert {HINTS_KEPT_S} == {age for age, _ in asked}
    assert [MOST_ROWS, MOST_ROWS, MOST_ROWS // 4, MOST_ROWS // 16, MOST_ROWS // 16] == [
        limit for _, limit in asked
    ]
