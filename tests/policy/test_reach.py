"""What a seat could do at all: every way that a call can take is named, and each one exists."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import product

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Decision, Facts, Outcome
from interlock.domain.ids import ToolName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.tool import Group, PolicyView, ToolVersion
from interlock.policy import reach, solve
from interlock.policy.engine import World
from interlock.policy.reach import Capability, Way, capability
from tests.policy.project import (
    ALL_TOOLS,
    EXECUTOR,
    GRANT_WRITES,
    OVER_500,
    REFUND,
    TEXT,
    TRIAGE_EXECUTOR,
    request,
    schema,
    tool,
    tools,
    world,
)

NOT_C9 = """@id("not-c9") @why("Not c9")
forbid (principal, action == Action::"billing.refund.create", resource)
when { context.args.customer == "c9" };"""
ONLY_SMALL = """@id("small") @owner("platform")
permit (principal in Workflow::"refunds", action == Action::"billing.refund.create", resource)
when { context.args.amount_cents < 100 };"""
CHECKED = """@id("checked") @why("Fraud check first")
forbid (principal, action == Action::"billing.refund.create", resource)
unless { context.done.contains("billing.invoice.show") };"""
BY_DOMAIN = """@id("own-domain") @approval("security") @why("Mail leaves our domain")
forbid (principal, action == Action::"mail.message.send", resource)
unless { context.derived.to_domain == "example.org" };"""
OVER_1000 = """@id("over-1000") @approval("finance-managers") @why("Large")
forbid (principal, action == Action::"billing.refund.create", resource)
when { context.derived.cents > 100000 };"""
CLASHING = """@id("big") @owner("platform")
permit (principal, action == Action::"billing.refund.create", resource)
when { context.args.amount_cents > 100 && context.args.amount_cents < 100 };"""
OVERFLOWS = """@id("sum") @why("Far too much")
forbid (principal, action == Action::"billing.refund.create", resource)
when { context.args.amount_cents * 9223372036854775807 > 1 };"""
BY_TIME = """@id("later") @approval("platform") @why("Not on this day")
forbid (principal, action == Action::"billing.refund.create", resource)
when { context.now.toDate() == datetime("2026-01-01") };"""
PROJECTS = (
    (GRANT_WRITES, OVER_500),
    (GRANT_WRITES, OVER_500, NOT_C9, CHECKED),
    (ONLY_SMALL, OVER_500),
    (GRANT_WRITES, BY_DOMAIN),
    (CLASHING,),
    (GRANT_WRITES, OVERFLOWS, BY_TIME),
    (),
)
ARGUMENTS: dict[ToolName, list[JsonObject]] = {
    REFUND: [
        {"amount_cents": amount, "customer": customer}
        for amount, customer in product((0, 1, 99, 100, 50_000, 50_001), ("c1", "c9"))
    ],
    ToolName("mail.message.send"): [{"to": "a@example.org"}, {"to": "a@example.com"}],
    ToolName("web.page.fetch"): [{"url": "https://example.org"}],
}
FACTS = [
    Facts(
        labels=Labels(names=names, tenants=tenants, is_untrusted=untrusted),
        same_key_count=same,
        calls_this_tool=calls,
        done=done,
        depth=depth,
        now_us=now_us,
    )
    for names, tenants, untrusted, same, calls, done, depth, now_us in product(
        (frozenset[str](), frozenset({"finance"})),
        (frozenset[str](), frozenset({"globex"})),
        (False, True),
        (0, 1),
        (0, 20),
        (frozenset[str](), frozenset({"billing.invoice.show"})),
        (0, 6),
        (0, 1_767_225_600_000_000),
    )
]


def fits(version: ToolVersion, arguments: JsonObject, open_: frozenset[str]) -> bool:
    """Take all arguments: contracts are not what is tested here."""
    del version, arguments, open_
    return True


def of(live: World, seat: Seat, name: ToolName) -> Capability:
    """Return a capability of the project of these tests."""
    return capability(live, seat, tools()[name], fits=fits)


def is_named(decision: Decision, ways: tuple[Way, ...]) -> bool:
    """Return whether a decision is one of the ways, or asks more teams than one of them."""
    return any(
        way.outcome is decision.outcome and set(way.groups) <= set(decision.groups) for way in ways
    )


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("autonomy", [0, 1, 2, 3])
@pytest.mark.parametrize("texts", PROJECTS)
def test_no_call_is_answered_in_a_way_that_is_not_named(
    texts: tuple[str, ...], autonomy: int, *, is_exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of calls, decided one by one: none is allowed beyond what was said before."""
    monkeypatch.setattr(reach, "CAN_BE_EXACT", is_exact)
    live = world(*texts, autonomy=autonomy)
    for seat, name in product((EXECUTOR, TRIAGE_EXECUTOR), ALL_TOOLS):
        ways = of(live, seat, name).ways
        for arguments, facts in product(
            ARGUMENTS.get(name, [{"id": "1"}]), FACTS[:: 7 + 2 * autonomy]
        ):
            decision = live.decide(request(name, arguments, seats=(seat,), facts=facts))
            if decision.outcome is not Outcome.DENY:
                assert is_named(decision, ways), (seat, name, arguments, facts)


@pytest.mark.parametrize("texts", PROJECTS)
def test_each_exact_way_has_a_call_that_is_answered_so(texts: tuple[str, ...]) -> None:
    """The example of each is decided as it says, whatever arguments are added to it."""
    live = world(*texts)
    examples = [
        (seat, name, way)
        for seat, name in product((EXECUTOR, TRIAGE_EXECUTOR), ALL_TOOLS)
        for way in of(live, seat, name).ways
        if way.example is not None
    ]
    for seat, name, way in examples:
        assert way.example is not None
        arguments = ARGUMENTS.get(name, [{"id": "1"}])[0] | way.example.arguments
        decision = live.decide(request(name, arguments, seats=(seat,), facts=way.example.facts))

        assert (way.outcome, way.groups) == (decision.outcome, decision.groups), way


@pytest.mark.parametrize(
    ("texts", "ways"),
    [
        ((), []),
        ((CLASHING,), []),
        ((ONLY_SMALL, OVER_500), [("allow", ()), ("needs_approval", ("refunds-owners",))]),
        (
            (GRANT_WRITES, OVER_500),
            [
                ("allow", ()),
                ("needs_approval", ("finance-managers",)),
                ("needs_approval", ("refunds-owners",)),
            ],
        ),
    ],
)
def test_ways_are_exactly_those_that_exist(
    texts: tuple[str, ...], ways: list[tuple[str, tuple[str, ...]]]
) -> None:
    """Conditions are weighed against each other, not only looked at one by one."""
    found = of(world(*texts), EXECUTOR, REFUND)

    assert ways == [(way.outcome.value, way.groups) for way in found.ways]
    assert all(way.is_exact for way in found.ways)


def test_way_names_every_policy_that_can_ask_for_it() -> None:
    """Not only those that hold for its example: they may exclude each other."""
    small = OVER_500.replace("refund-over-500", "small").replace("> 50000", "< 100")
    ways = of(world(GRANT_WRITES, OVER_500, small), EXECUTOR, REFUND).ways

    assert {(): (), ("finance-managers",): ("refund-over-500", "small")}.items() <= {
        way.groups: way.by for way in ways
    }.items()


def test_policies_of_all_groups_of_one_team_are_named() -> None:
    """A group of its own name and that of the owner are the same people."""
    owners = OVER_500.replace("finance-managers", "refunds-owners")
    live = world(GRANT_WRITES, owners, teams=("refunds-owners", "security", "platform"))
    ways = {way.groups: way.by for way in of(live, EXECUTOR, REFUND).ways}

    assert {"duplicate", "refund-over-500"} <= {*ways["refunds-owners",]}


def test_capability_names_who_grants_and_what_may_refuse() -> None:
    """With what is still open of each condition; what this seat can never meet is not said."""
    found = of(world(GRANT_WRITES, ONLY_SMALL, NOT_C9), EXECUTOR, REFUND)

    assert {"writes": "", "small": "when { ((context.args).amount_cents) < 100 }"} == {
        each.policy_id: each.text for each in found.granted
    }
    assert {"not-c9", "tenant-data", "label-clearance", "rate", "depth", "budget"} == {
        each.policy_id for each in found.unless
    }


def test_example_names_only_what_policies_read() -> None:
    """Any other argument may be anything, so nothing is made up for it."""
    ways = of(world(GRANT_WRITES, OVER_500), EXECUTOR, REFUND).ways
    example = next(way.example for way in ways if way.groups == ("finance-managers",))

    assert example is not None
    assert ["amount_cents"] == [*example.arguments]


def test_contract_rules_a_way_out() -> None:
    """A call that the contract refuses never comes to policy: no approval for more than 500."""
    bounded = tool(
        REFUND,
        group=tools()[REFUND].group,
        input_schema=schema(
            required=("amount_cents", "customer"),
            amount_cents={"type": "integer", "maximum": 50_000},
            customer={"type": "string", "enum": ["c1", "c9"]},
            note=TEXT,
        ),
    )
    live = world(GRANT_WRITES, OVER_500, tools=tools() | {REFUND: bounded})

    found = capability(live, EXECUTOR, bounded, fits=fits)

    assert [(), ("refunds-owners",)] == [way.groups for way in found.ways]


def test_policy_whose_evaluation_always_fails_refuses() -> None:
    """Each call overflows, so each is denied: none is named."""
    large = tool(
        REFUND,
        group=tools()[REFUND].group,
        input_schema=schema(
            required=("amount_cents",), amount_cents={"type": "integer", "minimum": 2}
        ),
    )
    live = world(GRANT_WRITES, OVERFLOWS, tools=tools() | {REFUND: large})

    assert () == capability(live, EXECUTOR, large, fits=fits).ways


def test_way_without_a_fitting_call_is_not_exact() -> None:
    """If the one call that was found breaks the contract, nobody has seen that there is one."""
    live = world(GRANT_WRITES, OVER_500)

    found = capability(live, EXECUTOR, tools()[REFUND], fits=lambda *_: False)

    assert found.ways
    assert not any(way.is_exact for way in found.ways)


def test_what_a_formula_cannot_say_is_named_but_not_exact() -> None:
    """The approval of the day is possible, and no example is claimed unless policies confirm it."""
    ways = of(world(GRANT_WRITES, BY_TIME), EXECUTOR, REFUND).ways
    groups = {way.groups: way for way in ways}

    assert {(), ("platform",), ("refunds-owners",)} == set(groups)
    assert groups[()].is_exact
    if groups["platform",].example is not None:
        day_us = groups["platform",].example.facts.now_us
        assert 1_767_225_600_000_000 <= day_us < 1_767_312_000_000_000


def test_derived_value_has_an_example_from_its_argument() -> None:
    """A condition on the domain of an address is met by an address of that domain."""
    live = world(GRANT_WRITES, BY_DOMAIN)
    ways = of(live, EXECUTOR, ToolName("mail.message.send")).ways
    examples = {way.groups: way.example for way in ways}

    assert examples[()] is not None
    assert {"to": "a@example.org"} == examples[()].arguments
    assert examples["security",] is not None


def test_amount_has_an_example_from_its_text() -> None:
    """A condition on hundredths is met by an amount as people write it, on either side."""
    by_text = tool(
        REFUND,
        group=Group.WRITE,
        input_schema=schema(required=("amount",), amount=TEXT),
        policy_view=PolicyView(derived={"cents": "hundredths(/amount)"}),
    )
    live = world(GRANT_WRITES, OVER_1000, tools=tools() | {REFUND: by_text})
    examples = {way.groups: way.example for way in of(live, EXECUTOR, REFUND).ways}

    shown = {groups: one and str(one.arguments["amount"]) for groups, one in examples.items()}
    assert {(), ("finance-managers",)} <= shown.keys()
    assert all(re.fullmatch(r"[0-9]+\.[0-9]{2}", amount or "") for amount in shown.values())
    assert Decimal(1000) >= Decimal(shown[()] or "")
    assert Decimal(1000) < Decimal(shown["finance-managers",] or "")


def test_group_without_a_team_can_lift_nothing() -> None:
    """A policy that asks an owner who is nobody refuses as a guardrail does."""
    delete = ToolName("billing.refund.delete")
    owned, ownerless = world(GRANT_WRITES), world(GRANT_WRITES, systems={})

    assert of(owned, EXECUTOR, delete).ways
    assert () == of(ownerless, EXECUTOR, delete).ways


def test_undecided_question_names_what_nothing_rules_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the solver cannot tell in time, the answer may be too long, never too short."""

    def give_up(*_: object) -> list[solve.Found]:
        raise solve.UndecidedError

    monkeypatch.setattr(solve, "search", give_up)
    ways = of(world(GRANT_WRITES, OVER_500), EXECUTOR, REFUND).ways

    assert [(), ("finance-managers",), ("refunds-owners",)] == [way.groups for way in ways]
    assert not any(way.is_exact for way in ways)


def test_tool_that_is_not_bound_cannot_be_called() -> None:
    """In an environment without it there is nothing to ask about."""
    unbound = tool("billing.invoice.show", environments={})
    live = world(GRANT_WRITES, tools=tools() | {unbound.name: unbound})

    assert () == capability(live, EXECUTOR, unbound, fits=fits).ways
