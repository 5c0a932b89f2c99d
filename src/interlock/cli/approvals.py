"""`interlock approval`: what waits for people, shown whole, and their answers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from interlock.cli.output import (
    cell,
    connected,
    out,
    part,
    rows_of,
    show_json,
    table,
    tells_errors,
    when,
)
from interlock.domain.canonical import JsonObject

app = typer.Typer(help="Approvals: calls that wait for a person.", no_args_is_help=True)
ApprovalArgument = Annotated[str, typer.Argument(metavar="ID", help="The approval's id.")]


@app.command("list")
@tells_errors
def list_(
    state: Annotated[str, typer.Option(help="pending, approved, rejected, expired or void.")] = (
        "pending"
    ),
    *,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List approvals, oldest first."""
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
def show(approval_id: ApprovalArgument) -> None:
    """Show exactly the call that an approval binds to."""
    with connected() as client:
        _print_card(client.get(f"approvals/{approval_id}"))


@app.command()
@tells_errors
def approve(
    approval_id: ApprovalArgument,
    *,
    reason: Annotated[str | None, typer.Option(help="Kept with the answer.")] = None,
) -> None:
    """Approve exactly the call that is shown now; it works once."""
    _answer(approval_id, "approve", reason)


@app.command()
@tells_errors
def reject(
    approval_id: ApprovalArgument,
    *,
    reason: Annotated[str, typer.Option(help="Sent to the agent.", prompt=True)],
) -> None:
    """Reject a call; the agent is told why."""
    _answer(approval_id, "reject", reason)


def _answer(approval_id: str, answer: str, reason: str | None) -> None:
    with connected() as client:
        shown = client.get(f"approvals/{approval_id}")
        _print_card(shown)
        body = client.post(
            f"approvals/{approval_id}/answer",
            {"answer": answer, "digest": shown["digest"], "reason": reason},
        )
    out.print(cell(body["state"]) + Text(f" by {body['answered_by']}"))


def _print_card(approval: JsonObject) -> None:
    out.print(Text(str(part(approval, "call", "heading")), style="bold"))
    for name in ("tool", "tool_version", "system", "environment", "risk", "flags"):
        out.print(Text(f"  {name:<12}", style="dim") + cell(part(approval, "call", name)))
    call = approval["call"]
    for argument in rows_of(call if isinstance(call, dict) else {}, "arguments"):
        out.print(Text(f"    {argument['name']} = {argument['value']}"))
    for name in ("rules", "guarantee", "undo", "seats", "labels", "trigger"):
        out.print(Text(f"  {name:<12}", style="dim") + cell(part(approval, "call", name)))
    for name in ("group", "digest", "state"):
        out.print(Text(f"  {name:<12}", style="dim") + cell(approval[name]))
