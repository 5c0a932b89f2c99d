"""`interlock approval`: what waits for people, shown whole, and their answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from interlock.cli.output import (
    AsJson,
    connected,
    fact,
    part,
    rows_of,
    say,
    show_json,
    table,
    tells_errors,
    when,
)
from interlock.domain.approval import ApprovalState
from interlock.domain.canonical import JsonObject

app = typer.Typer(help="Approvals: calls that wait for a person.", no_args_is_help=True)
ApprovalArgument = Annotated[str, typer.Argument(metavar="ID", help="The approval's id.")]


class Answer(StrEnum):
    """What a person may answer."""

    APPROVE = "approve"
    REJECT = "reject"


@app.command("list")
@tells_errors
def list_(
    state: Annotated[ApprovalState, typer.Option(help="Only this state.")] = ApprovalState.PENDING,
    *,
    as_json: AsJson = False,
) -> None:
    """List approvals, those asked last first."""
    with connected() as client:
        body = client.get("approvals", state=state)
    if as_json:
        show_json(body)
        return
    table(
        ("approval", "call", "environment", "group", "asked", "expires"),
        [
            (
                item["approval_id"],
                part(item, "call", "heading"),
                part(item, "call", "environment"),
                item["group"],
                when(item["asked_us"]),
                when(item["expires_us"]),
            )
            for item in rows_of(body, "approvals")
        ],
        empty=f"no approval is {state}",
    )


@app.command()
@tells_errors
def show(approval_id: ApprovalArgument, *, as_json: AsJson = False) -> None:
    """Show exactly the call that an approval binds to."""
    with connected() as client:
        body = client.get("approvals", approval_id)
    if as_json:
        show_json(body)
    else:
        _print_card(body)


@app.command()
@tells_errors
def approve(
    approval_id: ApprovalArgument,
    *,
    reason: Annotated[str | None, typer.Option(help="Kept with the answer.")] = None,
) -> None:
    """Approve exactly what is shown now, a call or the calls of a plan; it works once."""
    _answer(approval_id, Answer.APPROVE, reason)


@app.command()
@tells_errors
def reject(
    approval_id: ApprovalArgument,
    *,
    reason: Annotated[str, typer.Option(help="Sent to the agent.", prompt=True)],
) -> None:
    """Reject a call, or the plan that it is of; the agent is told why."""
    _answer(approval_id, Answer.REJECT, reason)


def _answer(approval_id: str, answer: Answer, reason: str | None) -> None:
    with connected() as client:
        shown = client.get("approvals", approval_id)
        _print_card(shown)
        answered = client.post(
            "approvals",
            approval_id,
            "answer",
            body={"answer": answer, "digest": shown["digest"], "reason": reason},
        )
    say(f"{answered['state']} by {answered['answered_by']}")


def _print_card(approval: JsonObject) -> None:
    call = approval["call"]
    # INVARIANT: the card of an approval is an object.
    assert isinstance(call, dict)
    say(str(call["heading"]), style="bold")
    if call["plan"] is not None:
        for name in ("environment", "risk", "flags", "planner"):
            fact(name, call[name])
        say("  the plan, of which the answer is for the calls marked *", style="dim")
        for row in rows_of(call, "plan"):
            _print_planned(row)
    else:
        for name in ("tool", "tool_version", "system", "environment", "risk", "flags"):
            fact(name.replace("_", " "), call[name])
        say("  arguments", style="dim")
        for argument in rows_of(call, "arguments"):
            say(f"    {argument['name']} = {argument['value']}")
        for name in ("guarantee", "undo"):
            fact(name, call[name])
    for name in ("rules", "seats", "labels", "workflow", "trigger"):
        fact(name, call[name])
    for name in ("group", "requester", "state", "answered_by", "answer_reason"):
        if approval[name] is not None:
            fact(name.replace("_", " "), approval[name])
    fact("asked", when(approval["asked_us"]))
    fact("expires", when(approval["expires_us"]))
    fact("digest", approval["digest"])


def _print_planned(row: JsonObject) -> None:
    needs = row["needs"]
    after = f" after {', '.join(map(str, needs))}" if isinstance(needs, list) and needs else ""
    undo = "" if not row["is_write"] else f", undone by {row['undo'] or 'nothing'}"
    mark = "*" if row["is_asked"] else " "
    say(f"   {mark} {row['id']}: {row['heading']}{after} ({row['decision']}{undo})")
    for argument in rows_of(row, "arguments"):
        say(f"        {argument['name']} = {argument['value']}")
