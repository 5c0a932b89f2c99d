"""What a change lets seats do: each widening is found, or it is ruled out that there is one."""

from __future__ import annotations

from itertools import product

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Decision, Outcome, PolicyRequest
from interlock.domain.ids import ToolName
from interlock.domain.tool import Group
from interlock.policy import solve
from interlock.policy.changes import compare
from interlock.policy.changes.rights import RightChange, rights_changed
from interlock.policy.engine import World
from interlock.runtime.registry.rights import fits
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
from tests.policy.test_reach import (
    ARGUMENTS,
    BY_DOMAIN,
    BY_TIME,
    CHECKED,
    FACTS,
    NOT_C9,
    ONLY_SMALL,
)

OVER_400 = OVER_500.replace("50000", "40000")
OVER_600 = OVER_500.replace("50000", "60000")
NO_PII = """@id("no-pii") @why("Personal data stays here")
forbid (principal, action == Action::"model.request", resource)
when { context.labels.contains(Label::"pii") };"""
STRICTNESS = (Outcome.ALLOW, Outcome.NEEDS_APPROVAL, Outcome.DRAFT, Outcome.DENY)
SIDES = (
    (GRANT_WRITES, OVER_500),
    (GRANT_WRITES, OVER_500, NOT_C9),
    (GRANT_WRITES, OVER_600, CHECKED),
    (ONLY_SMALL, BY_DOMAIN),
    (),
)


def changes(
    before: World, after: World, *, is_searched: bool = True, tool_name: ToolName | None = None
) -> list[RightChange]:
    """Return what changes in `dev`."""
    found = rights_changed(
        {"dev": before}, {"dev": after}, fits=fits, may_search=lambda: is_searched
    )
    return [each for each in found if tool_name in {None, each.tool}]


def is_milder(now: Decision, was: Decision) -> bool:
    """Return whether a call is answered more leniently than it was."""
    if now.outcome is was.outcome:
        return not set(was.groups) <= set(now.groups)
    return STRICTNESS.index(now.outcome) < STRICTNESS.index(was.outcome)


@pytest.mark.parametrize("is_searched", [True, False])
@pytest.mark.parametrize(
    ("old", "new"), [pair for pair in product(SIDES, SIDES) if len({*pair}) > 1]
)
def test_no_call_is_answered_more_leniently_unless_that_is_said(
    old: tuple[str, ...], new: tuple[str, ...], *, is_searched: bool
) -> None:
    """Thousands of calls, decided one by one on both sides, each way round."""
    before, after = world(*old), world(*new)
    said = {
        (each.seat, each.tool, each.is_widening)
        for each in changes(before, after, is_searched=is_searched)
    }
    for seat, name in product((EXECUTOR, TRIAGE_EXECUTOR), ALL_TOOLS):
        for arguments, facts in product(ARGUMENTS.get(name, [{"id": "1"}]), FACTS[::11]):
            asked = request(name, arguments, seats=(seat,), facts=facts)
            was, now = before.decide(asked), after.decide(asked)
            if is_milder(now, was):
                assert (seat, name, True) in said, (arguments, facts, was, now)
            if is_searched and is_milder(was, now):
                assert (seat, name, False) in said, (arguments, facts, was, now)


@pytest.mark.parametrize("old", SIDES)
def test_requests_to_models_are_compared_too(old: tuple[str, ...]) -> None:
    """A forbid that depends on labels: each seat may ask less, and back again more."""
    before, after = world(*old), world(*old, NO_PII)
    less = [each for each in changes(before, after) if each.model is not None]
    more = [each for each in changes(after, before) if each.model is not None]

    assert {(False, True)} == {(each.is_widening, each.is_exact) for each in less}
    assert {(True, True)} == {(each.is_widening, each.is_exact) for each in more}
    for each in less:
        assert each.example is not None
        asked = request(None, {}, seats=(each.seat,), facts=each.example.facts, model=each.model)
        assert (Outcome.ALLOW, Outcome.DENY) == (
            before.decide(asked).outcome,
            after.decide(asked).outcome,
        )


@pytest.mark.parametrize(("old", "new"), [*product(SIDES, SIDES)])
def test_example_is_answered_as_it_is_said_on_both_sides(
    old: tuple[str, ...], new: tuple[str, ...]
) -> None:
    """Whoever reads the difference can put the very call to both."""
    before, after = world(*old), world(*new)
    found = changes(before, after)

    assert found or old == new
    for each in found:
        assert each.tool is not None
        assert each.example is not None, each
        arguments = ARGUMENTS.get(each.tool, [{"id": "1"}])[0] | each.example.arguments
        asked = request(each.tool, arguments, seats=(each.seat,), facts=each.example.facts)
        was, now = before.decide(asked), after.decide(asked)
        assert (each.before.outcome, each.before.groups) == (was.outcome, was.groups)
        assert (each.after.outcome, each.after.groups) == (now.outcome, now.groups)
        assert each.is_widening == is_milder(now, was)


def test_moved_threshold_names_a_call_between_the_two() -> None:
    """The ways stay the same; which calls take them does not."""
    (change,) = changes(
        world(GRANT_WRITES, OVER_400), world(GRANT_WRITES, OVER_600), tool_name=REFUND
    )[:1]

    assert change.is_widening
    assert ("finance-managers",) == change.before.groups
    assert Outcome.ALLOW is change.after.outcome
    assert change.example is not None
    assert 40_000 < int(str(change.example.arguments["amount_cents"])) <= 60_000


def test_fewer_people_are_a_wider_right() -> None:
    """One person who approves is less than two, and two are more than one."""
    two = OVER_500.replace("@why", '@people("2") @why')
    before, after = world(GRANT_WRITES, two), world(GRANT_WRITES, OVER_500)

    wider = changes(before, after, tool_name=REFUND)
    tighter = changes(after, before, tool_name=REFUND)

    assert {True} == {change.is_widening for change in wider}
    assert {False} == {change.is_widening for change in tighter}


def test_stricter_rule_widens_nothing() -> None:
    """It is shown that there is no such call, not only that none was found."""
    found = changes(world(GRANT_WRITES, OVER_600), world(GRANT_WRITES, OVER_400, NOT_C9))

    assert found
    assert not any(each.is_widening for each in found)


def test_same_rule_in_other_words_changes_nothing() -> None:
    """Another text is another slice, and it is proved to say the same."""
    other = OVER_500.replace(
        "context.args.amount_cents > 50000", "context.args.amount_cents >= 50001"
    )

    assert other != OVER_500
    assert [] == changes(world(GRANT_WRITES, OVER_500), world(GRANT_WRITES, other))


def test_condition_that_no_formula_says_is_the_same_on_both_sides() -> None:
    """Only what is new beside it is a change."""
    plain, more = world(GRANT_WRITES, BY_TIME), world(GRANT_WRITES, BY_TIME, NOT_C9)

    assert [False] == sorted({each.is_widening for each in changes(plain, more, tool_name=REFUND)})


def test_wider_contract_is_a_wider_right() -> None:
    """What the contract refused before never came to policy."""

    def bounded(most: int) -> World:
        amount: JsonObject = {"type": "integer", "maximum": most}
        shape = schema(required=("amount_cents", "customer"), amount_cents=amount, customer=TEXT)
        refund = tool(REFUND, group=Group.WRITE, input_schema=shape)
        return world(GRANT_WRITES, tools=tools() | {REFUND: refund})

    wider = changes(bounded(10), bounded(20), tool_name=REFUND)
    less = changes(bounded(20), bounded(10), tool_name=REFUND)

    assert {(True, Outcome.DENY, True)} == {
        (each.is_widening, each.before.outcome, each.is_exact) for each in wider
    }
    assert {(False, Outcome.DENY, True)} == {
        (each.is_widening, each.after.outcome, each.is_exact) for each in less
    }


def test_tool_that_is_let_out_of_quarantine_is_a_new_right() -> None:
    """From never to what its ways are, each with its call; back again is a right less."""
    live, name = world(GRANT_WRITES, OVER_500), f"{REFUND}@dev"
    held = world(GRANT_WRITES, OVER_500, quarantine={name: "its description changed"})
    gained, lost = changes(held, live), changes(live, held)

    assert {REFUND} == {each.tool for each in gained + lost}
    assert {(True, Outcome.DENY)} == {(each.is_widening, each.before.outcome) for each in gained}
    assert {Outcome.ALLOW} == {each.after.outcome for each in gained}
    assert {(False, Outcome.DENY)} == {(each.is_widening, each.after.outcome) for each in lost}
    assert all(each.is_exact for each in gained + lost)


def test_observe_mode_is_a_right() -> None:
    """Whoever only watches from now on lets calls through; to enforce again is narrower."""
    watching = OVER_500.replace("@approval", '@mode("observe") @approval')
    enforced, watched = world(GRANT_WRITES, OVER_500), world(GRANT_WRITES, watching)

    assert [True] == sorted({each.is_widening for each in changes(enforced, watched)})
    assert [False] == sorted({each.is_widening for each in changes(watched, enforced)})
    assert [] == changes(watched, world(GRANT_WRITES))


def test_level_of_autonomy_is_a_right() -> None:
    """One level up: what had to be approved need not be."""
    found = changes(
        world(GRANT_WRITES, autonomy=1), world(GRANT_WRITES, autonomy=2), tool_name=REFUND
    )

    assert (EXECUTOR, ("refunds-owners",), Outcome.ALLOW) in {
        (each.seat, each.before.groups, each.after.outcome) for each in found if each.is_exact
    }


def test_undecided_question_counts_as_wider(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the solver gives up, the difference is told, and not as certain."""

    def give_up(*_: object) -> list[PolicyRequest]:
        raise solve.UndecidedError

    monkeypatch.setattr(compare, "more_lenient", give_up)
    monkeypatch.setattr(solve, "search", give_up)
    found = changes(world(GRANT_WRITES, OVER_600), world(GRANT_WRITES, OVER_400), tool_name=REFUND)

    assert [(True, False)] == sorted({(each.is_widening, each.is_exact) for each in found})


def test_added_forbid_is_plain_to_see() -> None:
    """Even without a solver nobody has to wonder about it."""
    before, after = world(GRANT_WRITES), world(GRANT_WRITES, NOT_C9, OVER_500)

    assert not any(each.is_widening for each in changes(before, after, is_searched=False))
    assert all(each.is_widening for each in changes(after, before, is_searched=False))
    assert changes(after, before, is_searched=False)
