"""`interlock why`, `summary` and `doctor`: what an operator asks."""

from __future__ import annotations

from typing import Annotated

import typer

from interlock.cli.output import (
    AsJson,
    connected,
    money,
    rows_of,
    say,
    show_json,
    table,
    tells_errors,
)
from interlock.domain.canonical import Json

why = typer.Typer(help="Why did that happen?", no_args_is_help=True)
Since = Annotated[str, typer.Option(help="A time span as 90s, 15m, 1h or 7d.")]


@why.callback()
def _why() -> None:
    """Keep `why` a group although it has one question so far."""


@why.command()
@tells_errors
def duplicates(since: Since = "1h", *, as_json: AsJson = False) -> None:
    """Say why effects with one business key were repeated."""
    with connected() as client:
        body = client.get("questions", "duplicates", since=since)
    if as_json:
        show_json(body)
        return
    for group in rows_of(body, "groups"):
        say(f"{group['n']} x {group['tool']}  {group['key_text']}", style="bold")
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
                    ", ".join(str(a["answered_by"]) for a in rows_of(row, "approvals")) or None,
                )
                for row in rows_of(group, "rows")
            ],
            empty="",
        )
        say(f"cause: {group['why']}")
    say(str(body["paragraph"]))


@tells_errors
def summary(since: Since = "1d", *, as_json: AsJson = False) -> None:
    """Count runs, tool calls, decisions and effects, and add up the cost."""
    with connected() as client:
        body = client.get("summary", since=since)
    if as_json:
        show_json(body)
        return
    rows = (
        ("runs", _counts(body["runs"])),
        ("tool calls", str(body["tool_calls"])),
        ("effects", _counts(body["effects"])),
        ("decisions", _counts(body["decisions"])),
        ("approvals", f"{body['approvals_open']} open"),
        ("cost", money(body["cost_micro_usd"])),
    )
    for name, value in rows:
        say(f"{name:<12}{value}")


@tells_errors
def doctor(*, as_json: AsJson = False) -> None:
    """Check this installation and say what to do; exit code 1 if something is wrong."""
    with connected() as client:
        body = client.get("doctor")
        is_remote = client.is_remote
    checks = rows_of(body, "checks")
    if as_json:
        show_json(body)
    else:
        _print_checks([*checks, _server_check(is_remote=is_remote)])
    if not all(check["is_ok"] for check in checks):
        raise typer.Exit(1)


def _server_check(*, is_remote: bool) -> dict[str, Json]:
    # Not a fault: everything but runs works without one.
    told = "answers" if is_remote else "none runs; `interlock serve` starts one"
    return {"name": "server", "is_ok": True, "message": told}


def _print_checks(checks: list[dict[str, Json]]) -> None:
    for check in checks:
        mark, style = ("✓", "green") if check["is_ok"] else ("✗", "red")
        say(f"{mark} {check['name']:<12} {check['message']}", style="" if check["is_ok"] else style)


def _counts(counted: Json) -> str:
    if not isinstance(counted, dict) or not counted:
        return "none"
    return ", ".join(f"{n} {name}" for name, n in counted.items())
