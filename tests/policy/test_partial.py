from __future__ import annotations

from itertools import chain, combinations, product

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Outcome
from tests.policy.project import GRANT_WRITES, OVER_500, request, world

AMOUNT, CUSTOMER, NOTE = "/amount_cents", "/customer", "/note"
PLACES = (AMOUNT, CUSTOMER, NOTE)
BIG: JsonObject = {"amount_cents": 70_000, "customer": "c1"}
NOT_C9 = """@id("not-c9") @why("Not c9")
forbid (principal, action == Action::"billing.refund.create", resource)
when { context.args.customer == "c9" };"""
ONLY_SMALL = """@id("small") @owner("platform")
permit (principal in Workflow::"refunds", action == Action::"billing.refund.create", resource)
when { context.args.amount_cents < 100 };"""
NOTED = """@id("noted") @why("Only with a note, or for c1")
forbid (principal, action == Action::"billing.refund.create", resource)
unless { context.args has note || context.args.customer == "c1" };"""
SUMS = """@id("sums") @draft @why("Far too much")
forbid (principal, action == Action::"billing.refund.create", resource)
when { {all: context.args}.all.amount_cents > 60000 };"""
PROJECTS = (
    (GRANT_WRITES, OVER_500),
    (GRANT_WRITES, OVER_500, NOT_C9),
    (ONLY_SMALL, NOT_C9),
    (GRANT_WRITES, NOTED, OVER_500),
    (ONLY_SMALL, GRANT_WRITES, SUMS),
    (OVER_500, NOT_C9),
)


def outcomes(texts: tuple[str, ...], arguments: JsonObject, *unknown: str) -> tuple[Outcome, ...]:
    """Return the most lenient and the strictest outcome."""
    found = world(*texts).bounds(request(arguments=arguments), unknown=unknown)
    return tuple(decision.outcome for decision in found)


@pytest.mark.parametrize("texts", PROJECTS)
def test_no_value_is_decided_outside_the_bounds(texts: tuple[str, ...]) -> None:
    """Whatever stands at the unknown places, the decision is between the two, ends included."""
    live, strictness = world(*texts), list(Outcome)
    notes: tuple[JsonObject, ...] = ({}, {"note": "x"}, {"note": None})
    values: list[JsonObject] = [
        {"amount_cents": amount, "customer": customer, **note}
        for amount, customer, note in product((1, 50_000, 70_000), ("c1", "c9"), notes)
    ]
    subsets = chain.from_iterable(combinations(PLACES, size) for size in range(4))
    for unknown, value in product([*subsets], values):
        # A reference stands where the value will be, of whatever type that is.
        seen = value | {place[1:]: "call:look/x" for place in unknown}
        lenient, strict = live.bounds(request(arguments=seen), unknown=unknown)
        outcome = live.decide(request(arguments=value)).outcome

        assert strictness.index(lenient.outcome) <= strictness.index(outcome), (unknown, value)
        assert strictness.index(outcome) <= strictness.index(strict.outcome), (unknown, value)


def test_without_unknowns_both_bounds_are_the_decision() -> None:
    """A call that is known whole is decided as ever."""
    live = world(GRANT_WRITES, OVER_500)

    bounds = live.bounds(request(arguments=BIG), unknown=())

    assert (live.decide(request(arguments=BIG)),) * 2 == bounds


def test_what_no_unknown_could_change_is_denied_already() -> None:
    """A guardrail about a known argument, and the lack of any grant, hold whatever comes."""
    c9: JsonObject = {"amount_cents": "call:a", "customer": "c9"}

    assert (Outcome.DENY,) * 2 == outcomes((GRANT_WRITES, NOT_C9), c9, AMOUNT)
    assert (Outcome.DENY,) * 2 == outcomes((NOT_C9,), BIG, AMOUNT)


def test_what_no_policy_reads_is_allowed_already() -> None:
    """An unknown of which no policy speaks leaves nothing open."""
    assert (Outcome.ALLOW,) * 2 == outcomes((GRANT_WRITES, NOT_C9), BIG, AMOUNT)


def test_an_unknown_that_a_policy_reads_leaves_the_call_open() -> None:
    """Allowed at best, and at worst what the policy says."""
    asks = (Outcome.ALLOW, Outcome.NEEDS_APPROVAL)

    assert (Outcome.ALLOW, Outcome.DENY) == outcomes((GRANT_WRITES, NOT_C9), BIG, CUSTOMER)
    assert asks == outcomes((GRANT_WRITES, OVER_500), BIG, AMOUNT)
    assert (Outcome.ALLOW, Outcome.DENY) == outcomes((ONLY_SMALL,), BIG, AMOUNT)


def test_an_unknown_never_counts_as_absent_or_present() -> None:
    """Whether an optional argument is there is unknown too: a null would drop it."""
    noted: JsonObject = {"amount_cents": 1, "customer": "c9", "note": "call:look/x"}

    assert (Outcome.ALLOW, Outcome.DENY) == outcomes((GRANT_WRITES, NOTED), noted, NOTE)


def test_who_must_be_asked_in_any_case_is_known() -> None:
    """An approval rule on a known argument asks its group whatever else comes."""
    lenient, strict = world(GRANT_WRITES, OVER_500).bounds(
        request(arguments=BIG), unknown=(CUSTOMER,)
    )

    assert (("finance-managers",), ("finance-managers",)) == (lenient.groups, strict.groups)
    assert (Outcome.NEEDS_APPROVAL,) * 2 == (lenient.outcome, strict.outcome)


def test_values_derived_from_an_unknown_are_unknown() -> None:
    """The domain of an address that is not there yet is not computed."""
    grant = """@id("mail") @owner("platform") permit (principal, action, resource);"""
    outside = """@id("inside") @why("Only to our own")
forbid (principal, action == Action::"mail.message.send", resource)
unless { context.derived.to_domain == "acme.test" };"""
    live = world(grant, outside)
    asked = request("mail.message.send", {"to": "call:look/address", "text": "x"})

    bounds = live.bounds(asked, unknown=("/to",))

    assert (Outcome.ALLOW, Outcome.DENY) == tuple(each.outcome for each in bounds)
    assert Outcome.DENY is live.decide(asked).outcome
