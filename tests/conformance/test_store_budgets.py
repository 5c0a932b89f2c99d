"""Budgets in the store: what is held at once never passes a limit, and nothing held is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from interlock.domain.budget import Budget, Cost, Standing
from interlock.domain.run import Run
from interlock.store import budgets
from interlock.store.engine import Database
from interlock.testing.clock import ManualClock
from tests.conformance.store_rows import running

NOTHING = Cost(micro_usd=0, calls=0)
CALLERS = 50


def budget(name: str, limit: int, **given: str) -> Budget:
    """Return a budget of money of the department `it`, for an hour unless told."""
    spec = {"title": name, "scope": "department", "of": "it", "period": "hour", "unit": "micro_usd"}
    return Budget(name=name, limit=limit, **{**spec, **given})  # type: ignore[arg-type]


def hold(
    db: Database,
    run: Run,
    of: tuple[Budget, ...],
    holder: str,
    amount: int,
    *,
    forced: bool = False,
) -> Standing | None:
    """Hold an amount of each budget; return the one that has too little."""
    cost = Cost(micro_usd=amount)
    return db.run(
        "test.hold",
        lambda tx: budgets.reserve(tx, of, run, holder=holder, cost=cost, is_forced=forced),
    )


def settle(db: Database, holder: str, real: Cost | None = None) -> None:
    """Settle what is held."""
    db.run("test.settle", lambda tx: budgets.settle(tx, holder, real))


def stands(db: Database, of: Budget, run: Run) -> tuple[int, int, int]:
    """Return what is spent, reserved and left."""
    with db.reading() as tx:
        found = budgets.standing(tx, of, of.account_of(run))
    return found.spent, found.reserved, found.left


def test_fifty_parallel_callers_never_pass_the_limit(db: Database) -> None:
    """As many are let through as the limit has room for, whoever comes first."""
    run, of = running(db), budget("a", 70)

    with ThreadPoolExecutor(CALLERS) as threads:
        found = list(threads.map(lambda n: hold(db, run, (of,), f"h{n}", 10), range(CALLERS)))

    assert 7 == found.count(None)
    assert (0, 70, 0) == stands(db, of, run)


def test_a_refused_reservation_keeps_nothing_of_any_budget(db: Database) -> None:
    """All or none: the one that has room is as before, and the one that has none is named."""
    run, roomy, tight = running(db), budget("a", 100), budget("b", 5)

    refused = hold(db, run, (roomy, tight), "h", 10)

    assert refused is not None
    assert "b" == refused.budget.name
    assert (0, 0, 100) == stands(db, roomy, run)


def test_what_was_done_is_spent_and_what_was_not_is_given_back(db: Database) -> None:
    """The real amount counts, and settling again changes nothing."""
    run, of = running(db), budget("a", 100)
    for holder in ("done", "cheap", "not_done"):
        hold(db, run, (of,), holder, 20)

    settle(db, "done")
    settle(db, "cheap", Cost(micro_usd=5))
    settle(db, "not_done", NOTHING)
    settle(db, "done")

    assert (25, 0, 75) == stands(db, of, run)


def test_a_bill_above_the_reservation_closes_the_budget_until_its_limit_is_raised(
    db: Database, clock: ManualClock
) -> None:
    """The real amount is recorded, and not even a new window opens it."""
    run, of = running(db), budget("a", 100)
    hold(db, run, (of,), "h", 10)
    settle(db, "h", Cost(micro_usd=30))

    refused = hold(db, run, (of,), "next", 1)
    clock.advance(3600)
    later = hold(db, run, (of,), "later", 1)
    raised = hold(db, run, (replace(of, limit=101),), "raised", 1)

    assert refused is not None
    assert (30, True) == (refused.spent, refused.is_closed)
    assert later is not None
    assert raised is None


def test_a_new_window_begins_empty_and_the_old_one_keeps_what_it_holds(
    db: Database, clock: ManualClock
) -> None:
    """What was reserved in an hour is settled in that hour's row."""
    run, of = running(db), budget("a", 10)
    hold(db, run, (of,), "old", 10)
    clock.advance(3600)

    fresh = stands(db, of, run)
    settle(db, "old")

    assert (0, 0, 10) == fresh == stands(db, of, run)


def test_an_undo_is_counted_where_nothing_is_left(db: Database) -> None:
    """An empty budget blocks no compensation."""
    run, of = running(db), budget("a", 10)
    hold(db, run, (of,), "all", 10)

    assert hold(db, run, (of,), "undo", 5, forced=True) is None
    assert (0, 15, 0) == stands(db, of, run)


def test_runs_have_accounts_of_their_own(db: Database) -> None:
    """What one run holds is not missing in another."""
    one, other = running(db), running(db, "k2")
    of = replace(budget("a", 10), scope="run", of=None, period="run")
    hold(db, one, (of,), "all", 10)

    assert (0, 10, 0) == stands(db, of, one)
    assert (0, 0, 10) == stands(db, of, other)
