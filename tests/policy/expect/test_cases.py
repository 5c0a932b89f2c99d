"""What a file of tests may say, and what each thing means."""

from __future__ import annotations

import pytest

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.decision import Outcome
from interlock.domain.errors import InputError
from interlock.domain.tool import ENVIRONMENTS
from interlock.policy.expect.cases import Example, Statement, environments_of, read_case

CALL: JsonObject = {
    "name": "small ones go through",
    "env": "dev",
    "as": "refunds/executor",
    "call": {"tool": "billing.refund.create", "args": {"amount_cents": 10}},
    "expect": "allow",
}


BOTH: JsonObject = {"outcome": "allow", "needs_approval": ["x"]}


def test_call_names_seat_arguments_and_facts() -> None:
    """What is not named is as at the start of a run, at a fixed time."""
    run: JsonObject = {"labels": ["pii"], "untrusted": True, "done": ["fraud.check"], "depth": 2}
    case = read_case({**CALL, "run": run, "approved": ["finance"]})

    assert isinstance(case, Example)
    facts = case.run.facts
    assert "refunds/executor" == str(case.seat)
    assert {"pii"} == facts.labels.names
    assert facts.labels.is_untrusted
    assert {"fraud.check"} == facts.done
    assert (2, 0) == (facts.depth, facts.calls_this_tool)
    assert facts.now_us > 0
    assert {"finance"} == case.approved
    assert Outcome.ALLOW is case.expect.answer
    assert ("dev",) == environments_of(case)


def test_teams_are_an_answer() -> None:
    """With the policies that ask for them."""
    case = read_case({**CALL, "expect": {"needs_approval": ["finance"], "by": ["large"]}})

    assert isinstance(case, Example)
    assert Outcome.NEEDS_APPROVAL is case.expect.answer
    assert {"finance"} == case.expect.needs_approval
    assert {"large"} == case.expect.by


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"never": {"can": "write"}}, "never anybody: write"),
        (
            {"never": {"can": "egress", "unattended": True, "when": {"untrusted": True}}},
            "never anybody: egress unattended from untrusted content",
        ),
        (
            {"only": {"who": ["a/b", "a/c"], "can": "write", "system": "crm", "env": "prod"}},
            "only a/b, a/c: write of crm in prod",
        ),
        (
            {"never": {"who": "a/b", "can": "write", "tool": "crm.note.add", "tenant": "t"}},
            "never a/b: crm.note.add of tenant t",
        ),
        ({"never": {"can": "write", "when": {"labels": ["pii"]}}}, "never anybody: write with pii"),
    ],
)
def test_statement_is_named_by_what_it_says(value: JsonObject, name: str) -> None:
    """So that nobody has to think of names for them."""
    case = read_case(value)

    assert isinstance(case, Statement)
    assert name == case.name
    assert environments_of(case) == (ENVIRONMENTS if case.env is None else (case.env,))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("text", "a test is a call"),
        ({}, "`as` names the seat"),
        ({**CALL, "as": "refunds"}, "a seat is `<workflow>/<agent>`"),
        ({**CALL, "expect": {}}, "allow, deny or draft, or has teams"),
        ({**CALL, "expect": BOTH}, "allow, deny or draft, or has teams"),
        ({**CALL, "run": {"lables": []}}, "lables"),
        ({"never": {"can": "write"}, "name": "x"}, "beside `never` nothing is said"),
        ({"never": "write"}, "a statement says at least"),
        ({"never": {"who": "any"}}, "`can` says what"),
        ({"only": {"can": "write"}}, "`only` says by `who`"),
    ],
)
def test_what_is_not_understood_is_refused(value: Json, told: str) -> None:
    """A test that is read in another way than it was meant would be green for nothing."""
    with pytest.raises(InputError, match=told):
        read_case(value)
