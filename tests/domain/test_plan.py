from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.canonical import Json
from interlock.domain.errors import InputError
from interlock.domain.ids import ToolName
from interlock.domain.plan import (
    MAX_CALLS,
    Plan,
    PlanCall,
    PlanReason,
    Reference,
    flaws,
    plan_schema,
)

FIND = ToolName("desk.issue.find")
A = PlanCall(id="a", tool=FIND, args={})


def call(call_id: str, *needs: str, **args: Json) -> PlanCall:
    """Return a call that depends on others."""
    return PlanCall(id=call_id, tool=FIND, args=args, depends_on=needs)


def test_references_are_found_wherever_they_stand() -> None:
    """In lists and objects; a literal that only looks like one is none."""
    planned = call("x", list=["call:a/0/b"], deep={"a/b": "call:/b"}, text="literal:call:c")

    expected = (
        Reference(at="/list/0", call="a", pointer="/0/b"),
        Reference(at="/deep/a~1b", call="b", pointer=""),
    )
    assert expected == planned.references
    assert frozenset({"a", "b"}) == planned.needs


def test_arguments_are_filled_from_outputs() -> None:
    """A reference without a pointer is the whole output; one that finds nothing is an error."""
    planned = call("x", whole="call:a", part="call:a/n", text="literal:call:a")

    assert {"whole": {"n": 1}, "part": 1, "text": "call:a"} == planned.filled({"a": {"n": 1}})
    with pytest.raises(InputError, match="there is nothing at `/a/n`"):
        planned.filled({"a": {}})


def test_calls_come_after_those_they_need() -> None:
    """Else in the order proposed."""
    plan = Plan(calls=(call("c", "b"), call("d"), call("b", n="call:a/n"), A))

    assert ["d", "a", "b", "c"] == [each.id for each in plan.in_order()]


def test_another_plan_has_another_digest() -> None:
    """Whatever changes in a call changes the plan."""
    plans = [
        Plan(calls=(A,)),
        Plan(calls=(replace(A, on_error="continue"),)),
        Plan(calls=(replace(A, args={"x": 1}),)),
        Plan(calls=(A, replace(A, id="b"))),
    ]

    assert Plan(calls=(replace(A),)).digest == plans[0].digest
    assert len(plans) == len({plan.digest for plan in plans})


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        (
            (),
            PlanReason(
                call=None, code="plan.size", message="a plan has 1 to 50 calls, this one has 0"
            ),
        ),
        ((A, A), PlanReason(call="a", code="plan.id", message="2 calls have the id `a`")),
        (
            (call("b", "x"),),
            PlanReason(
                call="b",
                code="plan.reference",
                message="it needs `x`, and the plan has no such call",
            ),
        ),
        (
            (A, call("b", "c"), call("c", n="call:b/n"), call("d", "d")),
            PlanReason(
                call=None,
                code="plan.cycle",
                message="these calls wait for each other: `b`, `c`, `d`",
            ),
        ),
    ],
)
def test_flaws_are_named(calls: tuple[PlanCall, ...], expected: PlanReason) -> None:
    """Size, ids, unknown calls and circles, each with its code."""
    assert (expected,) == flaws(Plan(calls=calls))


def test_a_plan_of_fifty_calls_is_the_largest() -> None:
    """One more is refused."""
    most = tuple(call(f"c{n}") for n in range(MAX_CALLS))

    assert () == flaws(Plan(calls=most))
    assert ["plan.size"] == [flaw.code for flaw in flaws(Plan(calls=(*most, A)))]


def test_contract_of_a_planner_names_the_tools() -> None:
    """A planner can only answer with tools of its step."""
    text = str(plan_schema([ToolName("b.c.d"), FIND]))

    assert "['b.c.d', 'desk.issue.find']" in text
    assert "'maxItems': 50" in text
