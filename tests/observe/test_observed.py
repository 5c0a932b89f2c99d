"""What policies in observe mode would have held back, counted from recorded decisions."""

from __future__ import annotations

from functools import partial

from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest, Reason
from interlock.domain.ids import DecisionId, EffectId, TenantId, ToolName
from interlock.domain.run import Run
from interlock.observe.observed import EXAMPLES, ObservedPolicy, observed_since
from interlock.store import decisions
from interlock.store.engine import Database
from interlock.store.tx import Tx
from tests.conformance import store_rows as rows

LARGE = Reason(code="policy.observed", message="Large ones are read", policy_id="large")
LATE = Reason(code="policy.observed", message="Nothing at night", policy_id="late")


def decided(tx: Tx, run: Run, call: str, outcome: Outcome, *observed: Reason) -> None:
    """Record a decision on a call."""
    request = PolicyRequest(
        seats=(rows.SEAT,), environment="dev", tool=rows.TOOL, arguments={}, facts=Facts()
    )
    decisions.put(
        tx,
        decision_id=DecisionId(tx.new_id()),
        run_id=run.run_id,
        effect_id=EffectId(call),
        decision=Decision(outcome=outcome, reasons=(), observed=observed),
        request=request,
        tool=ToolName(rows.TOOL),
        tool_version=1,
    )


def story(tx: Tx) -> None:
    """Two runs: one call is asked about twice, and one is denied anyway."""
    first, second = rows.accepted(tx, "k1"), rows.accepted(tx, "k2")
    decided(tx, first, "a", Outcome.NEEDS_APPROVAL, LARGE)
    decided(tx, first, "a", Outcome.ALLOW, LARGE)
    decided(tx, second, "b", Outcome.ALLOW, LARGE, LATE)
    decided(tx, second, "c", Outcome.DENY, LARGE)
    decided(tx, second, "d", Outcome.ALLOW)


def test_each_policy_is_told_with_calls_and_runs(db: Database) -> None:
    """A call counts once, and as let through if it was allowed in the end."""
    db.run("test.story", story)

    with db.reading() as tx:
        told = observed_since(tx, rows.TENANT, 0)

    assert told == (
        ObservedPolicy(
            policy_id="large",
            why="Large ones are read",
            calls=3,
            runs=2,
            let_through=2,
            tools=(rows.TOOL,),
            examples=("a", "b"),
        ),
        ObservedPolicy(
            policy_id="late",
            why="Nothing at night",
            calls=1,
            runs=1,
            let_through=1,
            tools=(rows.TOOL,),
            examples=("b",),
        ),
    )


def test_the_last_calls_are_named(db: Database) -> None:
    """Whoever looks wants to see what happened lately."""

    def many(tx: Tx) -> None:
        run = rows.accepted(tx)
        for number in range(EXAMPLES + 2):
            decided(tx, run, f"c{number}", Outcome.ALLOW, LATE)

    db.run("test.many", many)

    with db.reading() as tx:
        (told,) = observed_since(tx, rows.TENANT, 0)

    assert ("c2", "c3", "c4") == told.examples


def test_others_and_earlier_ones_are_not_told(db: Database) -> None:
    """Neither of another tenant nor from before the time that is asked about."""
    db.run("test.story", story)

    with db.reading() as tx:
        asked = partial(observed_since, tx)
        foreign, later = asked(TenantId("globex"), 0), asked(rows.TENANT, tx.now_us + 1)

    assert ((), ()) == (foreign, later)
