"""Pauses before a step is tried again, and who is woken first (waits: the conformance suite)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.calls.durable import Retry
from interlock.domain.ids import RunId, StepName
from interlock.runtime.durable.dispatch import StoreDispatch
from interlock.runtime.durable.waiting import DatabaseTime, pause_s, wake_all_due
from interlock.store import runs, waits
from interlock.store.engine import Database
from interlock.store.tx import Tx
from interlock.testing.clock import START_US, ManualClock
from tests.conformance.store_rows import running


class Woken:
    """Hints that are only kept."""

    def __init__(self) -> None:
        self.run_ids: list[RunId] = []

    def give(
        self, _tx: Tx, run_id: RunId, _segment: int, *, priority: int
    ) -> None:  # the port's name
        """Keep who was given one."""
        self.run_ids.append(run_id)


@given(
    failures=st.integers(min_value=1, max_value=10_000),
    initial_s=st.floats(min_value=0.01, max_value=10),
    max_s=st.floats(min_value=0.01, max_value=100),
)
def test_pause_doubles_up_to_its_limit(failures: int, initial_s: float, max_s: float) -> None:
    """The pause lies within half and one and a half of the bounded exponential."""
    bound = min(max_s, initial_s * 2.0 ** min(failures - 1, 60))

    pause = pause_s(Retry(initial_s=initial_s, max_s=max_s), failures)

    assert 0.5 * bound <= pause <= 1.5 * bound


def test_pauses_are_jittered() -> None:
    """Runs that failed together do not come back together."""
    assert 1 < len({pause_s(Retry(), 3) for _ in range(20)})


def test_database_time_is_known_only_well_before_a_moment() -> None:
    """Without having been told, or within a second of the moment, the database has to be asked."""
    hour_us, half_us = 3_600_000_000, 500_000
    time = DatabaseTime(None, None)
    unknown = time.is_surely_before(START_US + hour_us)
    time.learn(START_US)

    assert not unknown
    assert time.is_surely_before(START_US + hour_us)
    assert not time.is_surely_before(START_US + half_us)
    assert not time.is_surely_before(START_US - 1)


def test_an_injected_clock_is_database_time() -> None:
    """Where a test says what time it is, nothing is reckoned."""
    clock = ManualClock()
    time = DatabaseTime(clock, None)
    before = time.is_surely_before(START_US + 1)
    clock.advance(1)

    assert (True, False) == (before, time.is_surely_before(START_US + 1))


def test_who_is_longest_overdue_is_woken_first(db: Database) -> None:
    """However many come at once, each is as late as those before it make it, and no later."""
    hints, due_us = Woken(), [*range(2, 130, 2), *range(1, 130, 2)]
    waiting = wait_until(db, *due_us)

    wake_all_due(db, StoreDispatch(hints))

    assert [waiting[us] for us in sorted(due_us)] == hints.run_ids


@pytest.mark.parametrize(
    ("left_us", "pause"), [(None, 1.0), (3_600_000_000, 1.0), (400_000, 0.4), (1, 0.1), (-1, 1.0)]
)
def test_next_look_is_when_the_next_time_comes(
    db: Database, left_us: int | None, pause: float
) -> None:
    """At least every second, and not so soon that those close together are woken one by one."""
    hints = Woken()
    wait_until(db, START_US, *([] if left_us is None else [START_US + left_us]))

    assert pause == wake_all_due(db, StoreDispatch(hints))


def test_time_of_a_run_that_does_not_wait_is_not_looked_for_all_the_time(db: Database) -> None:
    """As when another worker is just waking it: the next look comes a second later."""
    run = running(db)
    db.run("test", lambda tx: waits.open_wait(tx, run.run_id, StepName("w"), "time/w", 1))

    assert 1.0 == wake_all_due(db, StoreDispatch(Woken()))


def wait_until(db: Database, *due_us: int) -> dict[int, RunId]:
    """Let a run wait for each of these times."""
    waiting = {us: running(db, f"k{us}").run_id for us in due_us}

    def wait(tx: Tx) -> None:
        for us, run_id in waiting.items():
            waits.open_wait(tx, run_id, StepName("w"), "time/w", us)
            runs.park(tx, run_id, epoch=1, reason=None)

    db.run("test.wait", wait)
    return waiting
