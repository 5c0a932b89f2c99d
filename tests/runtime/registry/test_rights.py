"""What a change lets seats do, told to people and programs."""

from __future__ import annotations

import pytest

from interlock.domain.decision import Facts, Outcome
from interlock.domain.ids import AgentName, ToolName, WorkflowName
from interlock.domain.principal import Seat
from interlock.policy.changes.rights import RightChange, Worlds
from interlock.policy.reach import Example, Way
from interlock.runtime.registry import rights
from interlock.runtime.registry.rights import Rights, compared
from tests.policy.project import GRANT_WRITES, OVER_500, REFUND, world

SEAT = Seat(workflow=WorkflowName("refunds"), agent=AgentName("executor"))
BY_TWO = Way(outcome=Outcome.NEEDS_APPROVAL, groups=("finance", "security"))


def change(*, number: int = 1, example: Example | None = None) -> RightChange:
    """Return a wider right."""
    return RightChange(
        seat=SEAT,
        environment="prod",
        tool=ToolName(f"billing.refund.take{number}"),
        is_widening=True,
        before=BY_TWO,
        after=Way(outcome=Outcome.ALLOW),
        example=example,
    )


def test_change_is_one_line_with_its_call_below() -> None:
    """Who, what, where, before and after, and by what arguments and facts."""
    example = Example(arguments={"amount": 7}, facts=Facts(calls_this_tool=3))

    text = Rights(changes=(change(example=example),)).to_text()

    assert text.splitlines() == [
        "",
        "Seats may do more",
        f"  + {SEAT}  billing.refund.take1  prod: approved by finance and security -> unattended",
        '      for instance with {"amount":7} while {"calls_this_tool":3}',
    ]


def test_long_list_is_cut_and_says_so() -> None:
    """A screen of it is enough to see that it is a lot."""
    lines = Rights(changes=tuple(change(number=n) for n in range(50))).to_text().splitlines()

    assert "  and 10 more; `--json` has them all" in lines
    assert lines[-1].startswith("perhaps: ")


def test_programs_are_told_whether_it_is_exact() -> None:
    """With the example as who-can tells it."""
    first, second = Rights(
        changes=(change(example=Example(arguments={}, facts=Facts())), change())
    ).to_json()

    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (True, {"arguments": {}, "facts": {}}) == (first["is_exact"], first["example"])
    assert (False, None) == (second["is_exact"], second["example"])
    assert "refunds/executor" == first["seat"]


def test_comparison_that_takes_too_long_ends_without_the_solver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plan is shown in any case; what nobody looked for is wider, perhaps."""
    before: Worlds = {"dev": world(GRANT_WRITES, OVER_500)}
    after: Worlds = {"dev": world(GRANT_WRITES)}
    searched = compared(before, after)
    monkeypatch.setattr(rights, "_PATIENCE_S", 0.0)
    quick = compared(before, after)

    assert searched.is_wider
    assert quick.is_wider
    assert {True} == {each.is_exact for each in searched.changes}
    assert {False} == {each.is_exact for each in quick.changes}
    assert {REFUND} <= {each.tool for each in quick.changes}
