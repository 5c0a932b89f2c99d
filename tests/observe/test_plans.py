from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.ids import RunId
from interlock.domain.workflow import FailureMode
from interlock.observe.plans import PlanView, plans_of
from tests.runtime.plane import CREATE, FIND, Plane, open_plane
from tests.runtime.test_plans import (
    ASK,
    LOOK,
    MAKE,
    NO_MAIL,
    PLAIN,
    SEEN,
    answer,
    answers,
    apply,
    asked,
    plan,
)

MAIL: JsonObject = {"id": "mail", "tool": FIND, "args": {"title": "mail"}}
DENIED: JsonObject = {
    "id": "denied",
    "tool": CREATE,
    "args": {"title": "call:mail/found"},
    "depends_on": ["plain"],
}


def plans(plane: Plane, run_id: RunId) -> tuple[PlanView, ...]:
    """Return the plans of a run."""
    run = plane.get(run_id)
    return plane.read(lambda tx: plans_of(tx, run))


def stages(view: PlanView) -> dict[str, str]:
    """Return how far each call is."""
    return {call.id: call.stage for call in view.calls}


def test_what_is_done_and_what_remains_is_said_of_each_call(tmp_path: Path) -> None:
    """First a call is asked for, then all of the plan is done."""
    with open_plane(tmp_path, planner=answers(plan(LOOK, MAKE))) as plane:
        apply(plane, policies=(ASK,))
        run_id = plane.start()
        (before,) = plans(plane, run_id)
        answer(plane, asked(plane)[0])
        (after,) = plans(plane, run_id)

    assert ("running", {"look": "done", "make": "waiting"}) == (before.state, stages(before))
    assert ("ended", {"look": "done", "make": "done"}) == (after.state, stages(after))
    assert ("/title from look/found",) == after.calls[1].takes


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ("stop", {"mail": "done", "plain": "done", "denied": "failed", "last": "skipped"}),
        ("compensate", {"mail": "done", "plain": "undone", "denied": "failed"}),
    ],
)
def test_a_plan_that_failed_says_what_stands(
    tmp_path: Path, then: str, expected: dict[str, str]
) -> None:
    """Calls that were not made, and those that were undone, are told apart."""
    last: JsonObject = {**LOOK, "id": "last", "depends_on": ["denied"]}
    mode = FailureMode(code="*", then=then)  # type: ignore[arg-type]  # parametrized
    with open_plane(tmp_path, planner=answers(plan(MAIL, PLAIN, DENIED, last))) as plane:
        apply(plane, policies=(NO_MAIL,), failure_modes=(mode,))

        (view,) = plans(plane, plane.start())

    assert "ended" == view.state
    assert expected.items() <= stages(view).items()


def test_a_refused_plan_reaches_none_of_its_calls(tmp_path: Path) -> None:
    """The denied one failed, the rest was never begun."""
    bad: JsonObject = {"id": "bad", "tool": CREATE, "args": {"title": "mail"}}
    with open_plane(tmp_path, planner=answers(plan(LOOK, bad))) as plane:
        apply(plane, policies=(NO_MAIL,))

        (view,) = plans(plane, plane.start())

    assert ("refused", {"look": "not_reached", "bad": "failed"}) == (view.state, stages(view))
    assert ("`bad`: Nothing called mail (policy.denied)",) == view.reasons


def test_the_declared_prices_of_a_plan_are_summed(tmp_path: Path) -> None:
    """What its calls cost if all are made, known before the first is."""
    tools = tuple(replace(each, price_micro_usd=100 * n) for n, each in enumerate(SEEN, start=1))
    with open_plane(tmp_path, planner=answers(plan(LOOK, MAKE, PLAIN))) as plane:
        apply(plane, tools=tools, policies=(ASK,))

        (view,) = plans(plane, plane.start())

    assert 100 + 200 + 200 == view.cost_micro_usd
