"""Budgets on the road: what a call may cost is held with its intent and settled with its end."""

from __future__ import annotations

import pytest

from interlock.domain.effect import EffectState
from interlock.domain.ids import RunId
from interlock.domain.run import RunState
from interlock.store import budgets, decisions
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF
from tests.calls.call_bench import NOT_SENT, UNKNOWN, CallBench, created, said

NAME = "calls"
BUDGET = """
interlock: v1
kind: Budget
name: calls
title: Calls of the department
scope: {scope}
of: {of}
period: day
unit: calls
limit: {limit}
"""


def opened(url: str, limit: int, *, scope: str = "department", of: str = "it") -> CallBench:
    """Return a bench whose department, or one workflow, has so many calls a day."""
    text = BUDGET.format(scope=scope, of=of, limit=limit)
    return CallBench(url, edits={"budgets/calls.yaml": text})


def stands(bench: CallBench) -> tuple[int, int]:
    """Return how many calls are spent, and how many held."""
    with bench.db.reading() as tx:
        budget = bench.road.live.at(tx).release.budgets[NAME]
        found = budgets.standing(tx, budget, budget.of or "")
    return found.spent, found.reserved


def why(bench: CallBench, run_id: RunId) -> str:
    """Return why the run's last decision was made."""
    with bench.db.reading() as tx:
        return decisions.list_for_run(tx, run_id)[-1].decision.reasons[0].message


def test_a_call_beyond_the_budget_is_denied_and_costs_nothing(database_url: str) -> None:
    """It is told which budget, what is left of it, and until when; nothing is sent."""
    with opened(database_url, 1) as bench:
        first, second = bench.call("keyed", text="a"), bench.call("keyed", text="b")

        assert EffectState.SUCCEEDED is bench.one(first).state
        assert (EffectState.DENIED, "budget.spent") == (
            bench.one(second).state,
            bench.one(second).error_code,
        )
        assert "the budget `calls` has 0 of 1 calls left until " in why(bench, second)
        assert (1, (1, 0)) == (bench.outside.count("keyed"), stands(bench))


def test_what_was_not_done_is_given_back(database_url: str) -> None:
    """A refusal that proves that nothing was done leaves the budget as it was."""
    with opened(database_url, 1) as bench:
        bench.outside.answers("keyed", said(400))
        run_id = bench.call("keyed")
        bench.pass_time(run_id)

        assert EffectState.FAILED_DEFINITE is bench.one(run_id).state
        assert (0, 0) == stands(bench)


@pytest.mark.parametrize(
    ("answer", "state", "spent"),
    [
        ("done", EffectState.CONFIRMED_DONE, 1),
        ("absent", EffectState.CONFIRMED_ABSENT, 0),
        ("abandoned", EffectState.ABANDONED, 1),
    ],
)
def test_what_nobody_knows_is_held_until_a_person_settles_it(
    database_url: str, answer: str, state: EffectState, spent: int
) -> None:
    """A parked call keeps what it may have cost; what certainly was not done is given back."""
    with opened(database_url, 1) as bench:
        bench.outside.answers("blind", UNKNOWN)
        run_id = bench.call("blind")
        effect = bench.one(run_id)
        held = stands(bench)
        bench.settle(effect, answer)

        assert (EffectState.PARKED, (0, 1)) == (effect.state, held)
        assert state is bench.one(run_id).state
        assert (spent, 0) == stands(bench)


def test_a_resend_holds_no_second_time(database_url: str) -> None:
    """An answer was lost: the same call is sent again, and costs what one call costs."""
    with opened(database_url, 1) as bench:
        bench.outside.answers("keyed", UNKNOWN, created())
        run_id = bench.call("keyed")
        bench.pass_time(run_id)

        assert EffectState.SUCCEEDED is bench.one(run_id).state
        assert (2, (1, 0)) == (bench.outside.count("keyed"), stands(bench))


def test_a_call_that_never_left_is_tried_again_within_the_budget(database_url: str) -> None:
    """What is given back between two attempts is held anew by the next one."""
    with opened(database_url, 1) as bench:
        bench.outside.answers("keyed", NOT_SENT, created())
        run_id = bench.call("keyed")
        bench.pass_time(run_id)

        assert EffectState.SUCCEEDED is bench.one(run_id).state
        assert (1, 0) == stands(bench)


def test_a_new_owner_goes_on_with_what_is_held(database_url: str) -> None:
    """Its worker is gone after the intent: what it held is not held twice, and is settled once."""
    with opened(database_url, 1) as bench:
        bench.points.at("call.intent.after", TOOL_OF["keyed"], bench.steal)
        run_id = bench.call("keyed")
        bench.pass_time(run_id)

        assert (EffectState.SUCCEEDED, RunState.SUCCEEDED) == bench.state(run_id)
        assert 1 < bench.one(run_id).epoch
        assert (1, 0) == stands(bench)


def test_budget_of_another_workflow_counts_nothing(database_url: str) -> None:
    """Who is not covered is not asked for anything."""
    with opened(database_url, 0, scope="workflow", of=WORKFLOW_OF["probed"]) as bench:
        run_id = bench.call("keyed")

        assert EffectState.SUCCEEDED is bench.one(run_id).state
        assert (0, 0) == stands(bench)


def test_each_lost_attempt_of_a_read_is_paid_for(database_url: str) -> None:
    """Its answers were lost, so it may have been billed each time; the next one has to fit."""
    with opened(database_url, 2) as bench:
        bench.outside.answers("read", UNKNOWN)
        run_id = bench.call("read")
        bench.pass_time(run_id)

        effect = bench.one(run_id)
        assert (EffectState.DENIED, "budget.spent") == (effect.state, effect.error_code)
        assert (2, (2, 0)) == (bench.outside.count("read"), stands(bench))


def test_a_read_that_is_given_up_was_paid_for(database_url: str) -> None:
    """Attempt by attempt, the last one as well."""
    with opened(database_url, 100) as bench:
        bench.outside.answers("read", UNKNOWN)
        run_id = bench.call("read")
        bench.pass_time(run_id)

        sent = bench.outside.count("read")
        assert EffectState.FAILED_DEFINITE is bench.one(run_id).state
        assert (True, (sent, 0)) == (sent > 1, stands(bench))
