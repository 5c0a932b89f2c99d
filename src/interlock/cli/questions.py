"""`interlock why`, `summary` and `doctor`: what an operator asks."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from interlock.cli.output import (
    cell,
    connected,
    money,
    out,
    rows_of,
    show_json,
    table,
    tells_errors,
)
from interlock.domain.canonical import Json

why = typer.Typer(help="Why did that happen?", no_args_is_help=True)
Since = Annotated[str, typer.Option(help="A time span as 90s, 15m, 1h or 7d.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@why.callback()
def _why() -> None:
    """Keep `why` a group although it has one question so far."""


@why.command()
@tells_errors
def duplicates(since: Since = "1h", *, as_json: AsJson = False) -> None:
    """Say why effects with one business key were repeated."""
    with connected() as client:
        body = client.get("questions/duplicates", since=since)
    if as_json:
        show_json(body)
        return
    for group in rows_of(body, "groups"):
        out.print(Text(f"{group['n']} x {group['tool']}  {group['key_text']}", style="bold"))
        table(
            ("effect", "state", "external", "idempotency key", "trigger", "run", "approver"),
            [
                (
                    row["effect_id"],
                    row["state"],
                    row["external_id"],
                    row["idem_key"],
                    f"{row['trigger_source']} {row['trigger_key']}",
                    row["run_id"],
                    ", ".join(str(a["answered_by"]) for a in rows_of(row, "approvals")),
                )
                for row in rows_of(group, "rows")
            ],
            empty="",
        )
        out.print(Text(f"cause: {group['why']}"))
    out.print(Text(str(body["paragraph"])))


@tells_errors
def summary(since: Since = "1d", *, as_json: AsJson = False) -> None:
    """Count runs, tool calls, decisions and effects, and add up the cost."""
    with connected() as client:
        body = client.get("summary", since=since)
    if as_json:
        show_json(body)
        return
    for name in ("runs", "decisions", "effects"):
        counted = body[name]
        out.print(Text(f"{name:<11}", style="bold") + Text(_counts(counted)))
    out.print(Text(f"{'tool calls':<11}", style="bold") + Text(str(body["tool_calls"])))
    out.print(Text(f"{'cost':<11}", style="bold") + Text(money(body["cost_micro_usd"])))


@tells_errors
def doctor(*, as_json: AsJson = False) -> None:
    """Check this installation and say what to do; exit code 1 if something is wrong."""
    with connected() as client:
        body = client.get("doctor")
    if as_json:
        show_json(body)
    checks = rows_of(body, "checks")
    for check in checks if not as_json else []:
        mark = "✓" if check["is_ok"] else "✗"
        out.print(Text(f"{mark} {check['name']:<16} ") + cell(check["message"]))
    if not all(check["is_ok"] for check in checks):
        raise typer.Exit(1)


def _counts(counted: Json) -> str:
    if not isinstance(counted, dict) or not counted:
        return "none"
    return ", ".join(f"{n} {name}" for name, n in counted.items())
