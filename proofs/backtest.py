"""A back-test decides 2,000 recorded calls again in a second of one core, and tells what flips.

The change is planted: one threshold of 200 policies moves. Which calls flip is known from their
amounts, without asking any policy; the figure is from the database to the report.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from interlock.domain.decision import Outcome, PolicyRequest
from interlock.domain.ids import DecisionId, EffectId, RunId, WorkflowName
from interlock.domain.principal import DEFAULT_TENANT
from interlock.domain.run import StartRequest, TriggerRef
from interlock.policy.changes.rights import Worlds
from interlock.policy.engine import World
from interlock.runtime.registry.backtest import Backtest, backtest
from interlock.store import decisions, migrate, runs
from interlock.store.engine import Database
from interlock.store.tx import Tx
from proofs import policy_project as project
from proofs.verdict import Verdict, say, sized

GOAL_A_SECOND = 2_000
CALLS, CALLS_LONG = 20_000, 200_000
_DAY_US = 86_400_000_000
_PAGE = 500
_NEVER = """
@id("never") @why("never") forbid (principal, action, resource) when { context.depth > 1000 };
"""


def main() -> Verdict:
    """Record calls, back-test them with one threshold moved, and with every policy changed."""
    count = sized(CALLS, long=CALLS_LONG)
    before, moved = project.world(), project.world(threshold=project.MOVED_THRESHOLD)
    asked = list(project.requests(count, seed=7))
    expected = _expected(before, asked)
    say(f"{count} calls, of which {len(expected)} flip")
    with TemporaryDirectory() as folder:
        db = Database(f"sqlite:///{Path(folder) / 'backtest.db'}")
        migrate.upgrade(db)
        _record(db, before, asked)
        say("recorded")
        one, one_s = _timed(db, {"prod": before}, {"prod": moved})
        say(f"one policy of {project.POLICIES} changed: {one_s:.1f} s of one core")
        every, every_s = _timed(db, {"prod": before}, {"prod": _all_changed()})
        say(f"all policies changed: {every_s:.1f} s of one core")
        db.close()
    rates = {"one_policy": count / one_s, "all_policies": 2 * count / every_s}
    is_right = _is_right(one, expected)
    return Verdict(
        value={name: round(rate) for name, rate in rates.items()},
        goal=GOAL_A_SECOND,
        holds=is_right and min(rates.values()) >= GOAL_A_SECOND and every.total == count,
        figures={
            "calls": count,
            "flips": len(expected),
            "flips_are_right": is_right,
            "unit": "decisions of one core a second, from the database to the report",
        },
    )


def _expected(before: World, asked: list[PolicyRequest]) -> set[int]:
    """Return which calls flip: those between the thresholds that nothing refuses anyway."""
    low, high = project.MOVED_THRESHOLD, project.THRESHOLD
    return {
        number
        for number, request in enumerate(asked)
        if request.tool == "s0.record.create"
        and low < int(str(request.arguments["amount"])) <= high
        and before.decide(request).outcome in {Outcome.ALLOW, Outcome.NEEDS_APPROVAL}
        and "finance" not in before.decide(request).groups
    }


def _is_right(told: Backtest, expected: set[int]) -> bool:
    """Return whether exactly those flip, each to an approval by finance, by the moved policy."""
    flips = told.replayed.flips
    return (
        sum(flip.calls for flip in flips) == len(expected) > 0
        and all({"finance"} <= {*flip.after.groups} - {*flip.before.groups} for flip in flips)
        and all(flip.by == ("large-s0",) and not flip.is_widening for flip in flips)
        and all(int(call[1:]) in expected for flip in flips for call in flip.examples)
        and told.replayed.moved == told.unreadable == told.replayed.beside_policy == 0
    )


def _all_changed() -> World:
    """Return a world in which each slice is another one, and no decision is."""
    return project.world(more=_NEVER)


def _record(db: Database, before: World, asked: list[PolicyRequest]) -> None:
    run_id = db.run("proof.run", _put_run)

    def put(tx: Tx, first: int) -> None:
        for number, request in enumerate(asked[first : first + _PAGE], first):
            decisions.put(
                tx,
                decision_id=DecisionId(tx.new_id()),
                run_id=run_id,
                effect_id=EffectId(f"c{number}"),
                decision=before.decide(request),
                request=request,
                tool=request.tool or "",
                tool_version=1,
            )

    for first in range(0, len(asked), _PAGE):
        db.run("proof.decisions", partial(put, first=first))


def _put_run(tx: Tx) -> RunId:
    run_id = RunId(tx.new_id())
    start = StartRequest(
        workflow=WorkflowName("w0"),
        workflow_version=1,
        release=1,
        environment="prod",
        tenant=DEFAULT_TENANT,
        department="support",
        trigger=TriggerRef(kind="manual", source="proof", key="1"),
        input={},
    )
    runs.insert(tx, run_id, start)
    return run_id


def _timed(db: Database, before: Worlds, after: Worlds) -> tuple[Backtest, float]:
    began_s = time.process_time()
    (*_, last) = backtest(db, before, after, tenant=DEFAULT_TENANT, span_us=_DAY_US, rest=0)
    # INVARIANT: a back-test ends with its report.
    assert isinstance(last, Backtest)
    return last, time.process_time() - began_s
