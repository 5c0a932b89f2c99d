"""Formulas mean what Cedar means: condition by condition, on calls that Cedar decides itself."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pytest
import z3

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.decision import Facts, Outcome, PolicyRequest
from interlock.domain.label import Labels
from interlock.domain.tool import Group
from interlock.policy.encode import Encoder, Fields, Surroundings, Unknowns, uid_text
from interlock.policy.engine import World
from tests.policy.project import (
    EXECUTOR,
    REFUND,
    TEXT,
    request,
    schema,
    tool,
    tools,
    world,
)

CONDITIONS = (
    "context.args.amount_cents > 500",
    "context.args.amount_cents >= 500 && context.args.amount_cents <= 501",
    'context.args.amount_cents < 500 || context.args.customer == "c1"',
    "context.args.amount_cents + 1 == 501",
    "context.args.amount_cents - 1 != 499",
    "context.args.amount_cents * 2 > 1000",
    "-context.args.amount_cents < 0",
    "context.args.amount_cents + 9223372036854775807 > 0",
    "context.args.amount_cents * 9223372036854775807 > 0",
    'context.args.customer like "c*"',
    'context.args.customer like "*\\**"',
    'context.args.customer like ""',
    "context.args has note",
    'context.args has note && context.args.note == "n"',
    'context.args has note && !(context.args.note like "*n*")',
    '["c1", "c2"].contains(context.args.customer)',
    'context.args.tags.contains("a")',
    "context.args.tags.contains(context.args.customer)",
    'context.args.tags.containsAll(["a", "b"])',
    'context.args.tags.containsAny(["a", "b"])',
    '["a", "b"].containsAll(context.args.tags)',
    '["a", "b"].containsAny(context.args.tags)',
    "context.args.tags.isEmpty()",
    'context.args.tags == ["a"]',
    "context.untrusted",
    "!context.untrusted && context.depth < 2",
    "if context.untrusted then context.depth > 0 else context.depth == 0",
    "context has user",
    'context has user && context.user.name == "ann"',
    'context has user.name && context.user.name like "a*"',
    'context.labels.contains(Label::"pii")',
    "resource.accepts.containsAll(context.labels)",
    "[principal.tenant].containsAll(context.tenants)",
    'context.done.contains("fraud.check")',
    'context.now < datetime("2026-01-01T00:00:00Z")',
    'context.now >= datetime("2025-06-01")',
    'principal in Workflow::"refunds"',
    'principal in [Workflow::"triage", Workflow::"refunds"]',
    'resource in System::"billing"',
    'action in Action::"write"',
    'principal is Agent in Workflow::"refunds"',
    "resource is Tool",
    'principal == Agent::"refunds/executor"',
    "principal.autonomy == 3",
    "resource has tenant && resource.tenant == principal.tenant",
    "principal.tools.contains(resource)",
    "resource.risk > 1 || resource.external",
    "context.args.amount_cents > 500 && context.args.amount_cents * 9223372036854775807 > 0",
)
WIDE = schema(
    required=("amount_cents", "customer", "tags"),
    amount_cents={"type": "integer"},
    customer=TEXT,
    note=TEXT,
    tags={"type": "array", "items": TEXT},
)
TAGS: tuple[list[Json], ...] = ([], ["a"], ["a", "b", "c1"])
NOTES: tuple[JsonObject, ...] = ({}, {"note": "n"})
ARGUMENTS: tuple[JsonObject, ...] = tuple(
    {"amount_cents": amount, "customer": customer, "tags": tags, **note}
    for amount, customer, tags, note in product((0, 500, 501), ("c1", "a*"), TAGS, NOTES)
)
FACTS = (
    Facts(),
    Facts(
        labels=Labels(names=frozenset({"pii"}), tenants=frozenset({"acme"}), is_untrusted=True),
        user="ann",
        depth=1,
        done=frozenset({"fraud.check"}),
        now_us=1_767_300_000_000_000,
    ),
    Facts(
        labels=Labels(names=frozenset({"finance"}), tenants=frozenset({"globex"})),
        user="bob",
        depth=3,
        now_us=1_750_000_000_000_000,
    ),
)


def policy_world(condition: str) -> World:
    """Return a world whose one permit has this condition."""
    text = f"""@id("only") @owner("platform")
permit (principal, action == Action::"billing.refund.create", resource) when {{ {condition} }};"""
    wide = tools() | {REFUND: tool(REFUND, group=Group.WRITE, input_schema=WIDE)}
    return world(text, defaults=False, tools=wide)


def said(live: World, asked: PolicyRequest) -> tuple[bool, bool]:
    """Return whether the formulas say that the permit matches, and that it fails."""
    part = live.slice_of(REFUND)
    assert part is not None
    assert part.action is not None
    unknowns = Unknowns()
    context = context_of(unknowns, unknowns.of(part.action.arguments, "args"))
    around = Surroundings(
        target=part.target,
        principal=("Agent", str(EXECUTOR)),
        entities=live.entities,
        context=context,
    )
    (policy,) = part.policies.values()
    held = Encoder(around).holds(policy.rule, policy.conditions)
    solver = z3.Solver()
    solver.add(*unknowns.bounds, *known(context, asked))
    found = solver.check(held.matches) == z3.sat, solver.check(held.fails) == z3.sat
    sure = solver.check(z3.Not(held.matches)) == z3.unsat, solver.check(z3.Not(held.fails))
    assert found == (sure[0], sure[1] == z3.unsat), "of a call that is known whole, all is known"
    return found


def context_of(unknowns: Unknowns, arguments: object) -> Fields:
    """Return a context with the facts that the conditions read."""
    yes, texts = z3.BoolVal(val=True), z3.SetSort(z3.StringSort())
    members = {name: (yes, z3.Const(name, texts)) for name in ("labels", "tenants", "done")}
    members |= {name: (yes, unknowns.number(name, least=0)) for name in ("depth", "now")}
    members["args"] = (yes, arguments)
    members["untrusted"] = (yes, z3.Bool("untrusted"))
    members["user"] = (z3.Bool("user?"), Fields({"name": (yes, z3.String("user"))}))
    return Fields(members)


def known(context: Fields, asked: PolicyRequest) -> list[z3.BoolRef]:
    """Return that everything unknown is as in a request."""
    arguments, facts = context.members["args"][1], asked.facts
    assert isinstance(arguments, Fields)
    found = [
        z3.Int("depth") == facts.depth,
        z3.Int("now") == facts.now_us // 1000,
        z3.Bool("untrusted") == facts.labels.is_untrusted,
        z3.Bool("user?") == (facts.user is not None),
        z3.String("user") == (facts.user or ""),
        context.members["labels"][1] == texts(uid_text("Label", n) for n in facts.labels.names),
        context.members["tenants"][1] == texts(uid_text("Tenant", n) for n in facts.labels.tenants),
        context.members["done"][1] == texts(facts.done),
    ]
    for name, (is_there, value) in arguments.members.items():
        given = asked.arguments.get(name)
        found.append(is_there == z3.BoolVal(given is not None))
        if isinstance(given, list):
            found.append(value == texts(map(str, given)))
        elif given is not None:
            found.append(value == given)
    return found


def texts(members: Iterable[str]) -> z3.ArrayRef:
    """Return a set of texts."""
    found = z3.EmptySet(z3.StringSort())
    for member in members:
        found = z3.SetAdd(found, z3.StringVal(member))
    return found


@pytest.mark.parametrize("condition", CONDITIONS)
def test_formula_says_what_cedar_decides(condition: str) -> None:
    """It matches where Cedar allows, and fails where Cedar's evaluation does."""
    live = policy_world(condition)
    for arguments, facts in product(ARGUMENTS[::3], FACTS):
        asked = request(arguments=arguments, facts=facts)
        decision = live.decide(asked)
        failed = any(reason.code == "policy.error" for reason in decision.reasons)

        assert (decision.outcome is Outcome.ALLOW, failed) == said(live, asked), asked


@pytest.mark.parametrize(
    "condition",
    [
        'context.now.offset(duration("1h")) > context.now',
        'context.now.toDate() == datetime("2026-01-01")',
        "{all: context.args}.all.amount_cents > 1",
        "context.args.amount_cents * context.args.amount_cents > 4",
        'ip("10.0.0.1").isInRange(ip("10.0.0.0/8")) && context.untrusted',
    ],
)
def test_what_no_formula_can_say_may_be_either(condition: str) -> None:
    """Then a call is both possible and not: too much may be found, never too little."""
    live = policy_world(condition)
    part = live.slice_of(REFUND)
    assert part is not None
    assert part.action is not None
    unknowns = Unknowns()
    context = context_of(unknowns, unknowns.of(part.action.arguments, "args"))
    around = Surroundings(
        target=part.target,
        principal=("Agent", str(EXECUTOR)),
        entities=live.entities,
        context=context,
    )
    (policy,) = part.policies.values()
    held = Encoder(around).holds(policy.rule, policy.conditions)
    solver = z3.Solver()
    solver.add(*unknowns.bounds)

    assert solver.check(held.matches) == z3.sat
    assert solver.check(z3.Not(held.matches)) == z3.sat
