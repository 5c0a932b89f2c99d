from __future__ import annotations

from interlock.domain.decision import Decision, Facts, Outcome, Reason


def test_outcomes_are_listed_by_strictness() -> None:
    """The order of the enum is the order in which a stricter outcome wins."""
    assert ["allow", "needs_approval", "draft", "deny"] == [outcome.value for outcome in Outcome]


def test_decision_names_each_policy_once() -> None:
    """Determining policies are listed sorted, without reasons that no policy gave."""
    reasons = tuple(
        Reason(code="policy.denied", message="no", policy_id=policy_id)
        for policy_id in ("b", None, "a", "b")
    )

    assert ("a", "b") == Decision(outcome=Outcome.DENY, reasons=reasons).policy_ids


def test_facts_start_from_nothing() -> None:
    """Facts that nobody computed claim no history, no person and no group."""
    facts = Facts()

    assert (None, frozenset()) == (facts.user, facts.done)
    assert 0 == facts.writes_this_run + facts.same_key_count + facts.calls_this_tool
