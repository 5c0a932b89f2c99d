"""A back-test from the database to the report."""

from __future__ import annotations

from interlock.domain.decision import Facts, PolicyRequest
from interlock.domain.ids import DecisionId, EffectId, TenantId
from interlock.policy.engine import World
from interlock.runtime.registry import backtest as module
from interlock.runtime.registry.backtest import Backtest, Progress, backtest
from interlock.store import decisions, migrate
from interlock.store.engine import Database
from interlock.store.tables.calls import decision as table
from interlock.store.tx import Tx
from tests.conformance.store_rows import HOUR_US, TENANT, accepted
from tests.policy.project import GRANT_WRITES, OVER_500, REFUND, request, world

CALLS = 2 * module.PAGE + 7


def recorded(url: str, live: World) -> Database:
    """Return a database with so many refunds of one run, each of more cents."""
    db = Database(url)
    migrate.upgrade(db)

    def put(tx: Tx) -> None:
        run = accepted(tx)
        for number in range(CALLS):
            asked: PolicyRequest = request(
                REFUND, {"amount_cents": number * 1000, "customer": "c1"}, facts=Facts()
            )
            decisions.put(
                tx,
                decision_id=DecisionId(tx.new_id()),
                run_id=run.run_id,
                effect_id=EffectId(f"c{number}"),
                decision=live.decide(asked),
                request=asked,
                tool=REFUND,
                tool_version=1,
            )

    db.run("test.decisions", put)
    return db


def told(db: Database, before: World, after: World, **given: object) -> list[Progress | Backtest]:
    """Return all that a back-test of the last hour says."""
    asked = {"tenant": TENANT, "span_us": HOUR_US, "rest": 0} | given
    return [*backtest(db, {"dev": before}, {"dev": after}, **asked)]  # type: ignore[arg-type]


def test_each_page_is_told_and_the_report_is_last(sqlite_url: str) -> None:
    """Every decision is looked at once, whatever the size of a page."""
    before, after = world(GRANT_WRITES), world(GRANT_WRITES, OVER_500)
    db = recorded(sqlite_url, before)

    *steps, report = told(db, before, after)

    assert [(200, CALLS), (400, CALLS)] == [
        (step.done, step.total) for step in steps if isinstance(step, Progress)
    ]
    assert isinstance(report, Backtest)
    (flip,) = report.replayed.flips
    assert (CALLS, CALLS - 51, 51) == (report.total, flip.calls, report.replayed.unchanged)
    db.close()


def test_only_the_own_runs_of_the_time_are_looked_at(sqlite_url: str) -> None:
    """Another tenant's calls, and older ones, are not decided and not counted."""
    live = world(GRANT_WRITES)
    db = recorded(sqlite_url, live)

    (foreign,) = told(db, live, world(), tenant=TenantId("globex"))
    (past,) = told(db, live, world(), span_us=-1)

    assert isinstance(foreign, Backtest)
    assert isinstance(past, Backtest)
    assert (0, 0) == (foreign.total, past.total)
    db.close()


def test_question_that_is_not_whole_is_counted_as_such(sqlite_url: str) -> None:
    """It cannot be decided again, and nobody guesses."""
    live = world(GRANT_WRITES)
    db = recorded(sqlite_url, live)
    one = table.c.effect_id == "c3"
    db.run(
        "test.erase",
        lambda tx: tx.connection.execute(table.update().where(one).values(request="{}")),
    )

    report = told(db, live, world())[-1]

    assert isinstance(report, Backtest)
    assert (1, CALLS - 1) == (report.unreadable, report.replayed.flips[0].calls)
    db.close()
