"""Tests of policies: calls are decided, statements are proved or broken by a call."""

from __future__ import annotations

import pytest

from interlock.domain.canonical import Json, JsonObject
from interlock.policy import solve
from interlock.policy.expect import verdicts
from interlock.policy.expect.cases import read_case
from interlock.policy.expect.verdicts import Judged, judge
from interlock.runtime.registry.rights import fits
from tests.policy.project import GRANT_WRITES, OVER_500, world

SEAT = "refunds/executor"
SEATS: list[Json] = [SEAT, "refunds/workflow"]
NO_C9 = """@id("no-c9") @why("Not c9")
forbid (principal, action == Action::"billing.refund.create", resource)
when { context.args.customer == "c9" };"""


def judged(*texts: str, autonomy: int = 3, case: JsonObject) -> Judged:
    """Return what came of a test."""
    worlds = {"dev": world(*texts, autonomy=autonomy)}
    return judge(read_case(case), worlds, fits=fits)  # type: ignore[arg-type]


def refund(amount: int, expect: Json, **more: Json) -> JsonObject:
    """Return a test of one refund."""
    arguments: JsonObject = {"amount_cents": amount, "customer": "c1"}
    call: JsonObject = {"tool": "billing.refund.create", "args": arguments}
    return {"name": "it", "env": "dev", "as": SEAT, "call": call, "expect": expect, **more}


EMPTY: JsonObject = {"tool": "billing.refund.create", "args": {}}


@pytest.mark.parametrize(
    "case",
    [
        refund(10, "allow"),
        refund(60_000, {"needs_approval": ["finance-managers"], "by": ["refund-over-500"]}),
        refund(60_000, "allow", approved=["finance-managers"]),
        refund(10, "deny", run={"tenants": ["globex"]}),
        refund(10, {"outcome": "deny", "by": ["tenant-data"]}, run={"tenants": ["globex"]}),
    ],
)
def test_call_that_is_answered_as_expected_holds(case: JsonObject) -> None:
    """By all of facts, teams and policies."""
    assert Judged(name="it", verdict="holds") == judged(GRANT_WRITES, OVER_500, case=case)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (refund(60_000, "allow"), "it is needs_approval by finance-managers (refund-over-500: "),
        (refund(10, "deny"), "it is allow (writes: "),
        (refund(60_000, {"needs_approval": ["platform"]}), "by finance-managers"),
        (refund(10, {"outcome": "allow", "by": ["other"]}), "it is allow (writes: "),
        ({**refund(10, "allow"), "as": "refunds/nobody"}, "there is no seat `refunds/nobody`"),
        ({**refund(10, "allow"), "call": EMPTY}, "the arguments break the contract"),
    ],
)
def test_call_that_is_answered_otherwise_fails_with_the_answer(case: JsonObject, why: str) -> None:
    """Whoever reads it need not run anything else to know."""
    found = judged(GRANT_WRITES, OVER_500, case=case)

    assert "fails" == found.verdict
    assert why in found.why


@pytest.mark.parametrize(
    "case",
    [
        {"only": {"who": SEATS, "can": "write", "env": "dev"}},
        {"never": {"who": "triage/executor", "can": "write"}},
        {"never": {"can": "egress", "unattended": True, "when": {"untrusted": True}}},
        {"never": {"can": "destructive", "unattended": True}},
        {"never": {"can": "write", "when": {"labels": ["finance"]}}},
        {"never": {"tenant": "globex", "can": "write"}},
    ],
)
def test_statement_that_holds_is_proved(case: JsonObject) -> None:
    """For every call that there could be, of every seat and tool that it is about."""
    found = judged(GRANT_WRITES, OVER_500, case=case)

    assert ("holds", "") == (found.verdict, found.why)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ({"never": {"can": "write"}}, "refunds/executor billing.refund.create in dev is allow: "),
        ({"never": {"can": "destructive"}}, "billing.refund.delete in dev is needs_approval: "),
        ({"only": {"who": ["triage/executor"], "can": "write"}}, "refunds/executor"),
        ({"never": {"can": "write", "when": {"labels": ["pii"]}}}, '"pii"'),
        ({"never": {"can": "write", "system": "crn"}}, "there is no system `crn`"),
        ({"never": {"can": "write", "tool": "crm.note.ad"}}, "there is no tool `crm.note.ad`"),
        ({"never": {"can": "write", "who": "refunds/other"}}, "there is no seat `refunds/other`"),
    ],
)
def test_statement_that_does_not_hold_is_broken_by_a_call(case: JsonObject, why: str) -> None:
    """A misspelt name is no statement about nothing: it fails."""
    found = judged(GRANT_WRITES, OVER_500, case=case)

    assert "fails" == found.verdict
    assert why in found.why


def test_draft_is_no_call() -> None:
    """Nothing is sent by it, so nobody can do it."""
    case: JsonObject = {"never": {"can": "write", "env": "dev"}}

    assert "holds" == judged(GRANT_WRITES, autonomy=0, case=case).verdict
    assert "fails" == judged(GRANT_WRITES, autonomy=1, case=case).verdict


def test_statement_about_a_condition_is_weighed_not_sampled() -> None:
    """No amount is both small and large."""
    small = """@id("small") @owner("platform")
    permit (principal, action == Action::"billing.refund.create", resource)
    when { context.args.amount_cents < 100 };"""
    case: JsonObject = {"never": {"can": "write", "tool": "billing.refund.create"}}
    large = OVER_500.replace('@approval("finance-managers") ', "").replace("50000", "50")

    assert "fails" == judged(small, case=case).verdict
    assert "fails" == judged(small, large, case=case).verdict
    assert "holds" == judged(small, large.replace("> 50", "< 100"), case=case).verdict


def test_what_the_solver_cannot_tell_is_unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no success."""

    def give_up(*_: object, **__: object) -> None:
        raise solve.UndecidedError

    monkeypatch.setattr(solve, "counterexample", give_up)
    found = judged(GRANT_WRITES, case={"never": {"can": "write"}})

    assert ("unproved", True) == (found.verdict, "the solver cannot tell" in found.why)


def test_without_a_solver_only_what_nothing_allows_is_proved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And it says what to install."""
    monkeypatch.setattr(verdicts, "CAN_BE_EXACT", False)
    never: JsonObject = {"never": {"who": SEAT, "can": "write", "tool": "billing.refund.create"}}

    assert "holds" == judged(case=never).verdict
    found = judged(GRANT_WRITES, NO_C9, case=never)
    assert ("unproved", True) == (found.verdict, "interlock[verify]" in found.why)
