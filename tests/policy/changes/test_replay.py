"""Recorded questions, decided again: what flips, by whom, and what is left out of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Decision, Facts, Outcome, Reason
from interlock.policy.changes.replay import EXAMPLES, Asked, Flip, Replay, Replayed
from interlock.policy.engine import World
from tests.policy.project import GRANT_WRITES, OVER_500, REFUND, request, world

OVER_400 = OVER_500.replace("50000", "40000").replace("refund-over-500", "refund-over-400")
NO_C9 = """@id("no-c9") @why("Not c9")
forbid (principal, action == Action::"billing.refund.create", resource)
when { context.args.customer == "c9" };"""


def asked(
    live: World,
    amount: int = 1000,
    *,
    customer: str = "c1",
    call: str = "call",
    run: str = "run",
    lifted: tuple[str, ...] = (),
    facts: Facts | None = None,
) -> Asked:
    """Return a refund as it was decided and recorded."""
    arguments: JsonObject = {"amount_cents": amount, "customer": customer}
    question = request(REFUND, arguments, lifted=lifted, facts=facts)
    return Asked(request=question, decision=live.decide(question), run=run, call=call)


def replayed(before: World, after: World, *questions: Asked) -> Replayed:
    """Decide questions again."""
    replay = Replay({"dev": before}, {"dev": after})
    for each in questions:
        replay.take(each)
    return replay.replayed()


def told(flip: Flip) -> tuple[Outcome, Outcome, tuple[str, ...], bool, int]:
    """Return what a flip comes to."""
    return flip.before.outcome, flip.after.outcome, flip.by, flip.is_widening, flip.calls


def test_moved_threshold_flips_the_calls_between() -> None:
    """By the policy that holds them now, with calls and runs counted once each."""
    live = world(GRANT_WRITES, OVER_500)
    questions = [
        asked(live, amount, call=f"c{number}", run=f"r{number // 2}")
        for number, amount in enumerate((10, 45_000, 46_000, 60_000, 47_000, 48_000))
    ]

    found = replayed(live, world(GRANT_WRITES, OVER_400), *questions, questions[1])

    (flip,) = found.flips
    held = Outcome.NEEDS_APPROVAL
    assert (Outcome.ALLOW, held, ("refund-over-400",), False, 4) == told(flip)
    assert (5, 3, (REFUND,)) == (flip.decisions, flip.runs, flip.tools)
    assert ("c1", "c2", "c4") == flip.examples
    assert len(flip.examples) == EXAMPLES
    assert 2 == found.unchanged


def test_policy_that_goes_is_named_for_what_it_held_back() -> None:
    """What is let through comes first, by whom it was held."""
    before, after = world(GRANT_WRITES, OVER_500), world(GRANT_WRITES, NO_C9)

    found = replayed(
        before,
        after,
        asked(before, 60_000, call="large"),
        asked(before, 10, customer="c9", call="c9"),
    )

    assert [
        (Outcome.NEEDS_APPROVAL, Outcome.ALLOW, ("refund-over-500",), True, 1),
        (Outcome.ALLOW, Outcome.DENY, ("no-c9",), False, 1),
    ] == list(map(told, found.flips))


def test_missing_grant_is_named_by_its_code_and_a_new_one_by_its_id() -> None:
    """Where no policy refuses, nobody is blamed; who grants is named."""
    none, some = world(), world(GRANT_WRITES)

    lost = replayed(some, none, asked(some)).flips
    gained = replayed(none, some, asked(none)).flips

    assert [(Outcome.ALLOW, Outcome.DENY, ("policy.no_grant",), False, 1)] == list(map(told, lost))
    assert [(Outcome.DENY, Outcome.ALLOW, ("writes",), True, 1)] == list(map(told, gained))


def test_call_that_was_agreed_to_is_asked_with_the_agreement() -> None:
    """It needs one team more than those that agreed."""
    more = """@id("legal") @approval("platform") @why("Legal reads it")
    forbid (principal, action == Action::"billing.refund.create", resource);"""
    live = world(GRANT_WRITES, OVER_500)

    found = replayed(
        live, world(GRANT_WRITES, OVER_500, more), asked(live, 60_000, lifted=("finance-managers",))
    )

    (flip,) = found.flips
    assert (Outcome.ALLOW, ("platform",)) == (flip.before.outcome, flip.after.groups)


def test_what_no_policy_decided_is_left_out() -> None:
    """A switch or a broken contract says nothing of policies."""
    live = world(GRANT_WRITES)
    stopped = Decision(
        outcome=Outcome.DENY, reasons=(Reason(code="call.stopped", message="stopped"),)
    )

    found = replayed(live, world(), replace(asked(live), decision=stopped))

    assert (1, 0, ()) == (found.beside_policy, found.unchanged, found.flips)


def test_flips_are_told_against_now_and_what_moved_before_is_counted() -> None:
    """The policies have changed since: what they already changed is no flip of the candidate."""
    then, now = world(GRANT_WRITES), world(GRANT_WRITES, OVER_500)

    found = replayed(now, world(), asked(then, 60_000))

    assert (1, 1) == (found.moved, len(found.flips))
    assert Outcome.NEEDS_APPROVAL is found.flips[0].before.outcome


def test_what_cannot_differ_is_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of one tool's policies costs nothing for calls of all others."""
    before, after = world(GRANT_WRITES), world(GRANT_WRITES, OVER_500)
    other = request("billing.invoice.show")
    questions = [Asked(request=other, decision=before.decide(other), run="r", call="c")]
    decided: list[object] = []
    monkeypatch.setattr(World, "decide", lambda _, question: decided.append(question))

    found = replayed(before, after, *questions)

    assert (1, []) == (found.unchanged, decided)


def test_environment_without_policies_denies() -> None:
    """As it does when the call is made."""
    live = world(GRANT_WRITES)
    replay = Replay({"dev": live}, {})
    replay.take(asked(live))

    assert Outcome.DENY is replay.replayed().flips[0].after.outcome
