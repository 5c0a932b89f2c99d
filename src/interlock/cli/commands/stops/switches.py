"""`interlock kill`: stop calls at once, see what is stopped, let it go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated

import typer

from interlock.cli.output import (
    AsJson,
    cell,
    connected,
    note,
    part,
    rows_of,
    say,
    show_json,
    table,
    tells_errors,
    when,
)
from interlock.domain.canonical import JsonObject
from interlock.domain.errors import InputError
from interlock.domain.switch import Scope

app = typer.Typer(
    help="Kill switches: stop calls and model requests at once.", no_args_is_help=True
)
Switch = Annotated[str, typer.Argument(metavar="ID", help="The kill switch's id.")]
Reason = Annotated[str, typer.Option(help="Why; it is shown with the switch and kept.")]
_EVERYTHING, _WRITES = "everything", "writes"
_PARTS = ", ".join(f"`{part.name}=NAME`" for part in fields(Scope) if part.name != "writes_only")
_WORDS = f"{_PARTS} or `{_WRITES}`"


@app.command("set")
@tells_errors
def set_(
    parts: Annotated[
        list[str], typer.Argument(metavar="PART...", help=f"{_WORDS}; or `{_EVERYTHING}`.")
    ],
    reason: Reason,
    *,
    for_s: Annotated[
        int | None, typer.Option("--for", min=1, help="For so many seconds, not until lifted.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Stop the calls and model requests that fit every part; says which calls are under way."""
    is_all = parts == [_EVERYTHING]
    scope = {} if is_all else _scope(parts)
    body: JsonObject = {"scope": scope, "reason": reason, "for_s": for_s, "everything": is_all}
    with connected() as client:
        done = client.post("kill-switches", body=body)
    if as_json:
        show_json(done)
        return
    stops = part(done, "kill_switch", "stops")
    say(f"stopped: {stops}, by kill switch {part(done, 'kill_switch', 'switch_id')}")
    _show_in_flight(done)


@app.command()
@tells_errors
def lift(
    switch: Switch,
    reason: Reason,
    leave: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help=f"What stays stopped, part by part: {_WORDS}."),
    ] = None,
) -> None:
    """Let calls go on, but for what stays stopped. In prod, two people have to say the same."""
    leaving = None if leave is None else _scope(leave)
    with connected() as client:
        done = client.post(
            "kill-switches", switch, "lift", body={"reason": reason, "leaving": leaving}
        )
    if not done["is_lifted"]:
        note("it stops calls in prod: a second person has to give the same command within an hour")
        say("not lifted yet")
        return
    say("lifted")
    if done["leaving"] is not None:
        stops, found = part(done, "leaving", "stops"), part(done, "leaving", "switch_id")
        say(f"still stopped: {stops}, by kill switch {found}")


@app.command()
@tells_errors
def status(
    *,
    past: Annotated[
        bool, typer.Option("--past", help="Also those that are lifted or over.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List what is stopped now, since when, by whom and why."""
    with connected() as client:
        body = client.get("kill-switches", past=past)
    if as_json:
        show_json(body)
        return
    table(
        ("id", "stops", "since", "until", "by", "reason"),
        [
            (
                row["switch_id"],
                row["stops"],
                when(row["set_us"]),
                _until(row),
                row["set_by"],
                row["reason"],
            )
            for row in rows_of(body, "kill_switches")
        ],
        empty="nothing is stopped",
    )


@app.command()
@tells_errors
def show(switch: Switch, *, as_json: AsJson = False) -> None:
    """Show one switch, who lifted it, and the calls in its scope that are under way now."""
    with connected() as client:
        body = client.get("kill-switches", switch)
    if as_json:
        show_json(body)
        return
    row = body["kill_switch"]
    # INVARIANT: the answer of one switch has it.
    assert isinstance(row, dict)
    say(f"{row['stops']}", style="bold")
    say(f"set by {row['set_by']} at {when(row['set_us'])}: {row['reason']}")
    say(f"until: {_until(row)}")
    if row["lift_asked"] is not None:
        by, why = part(row, "lift_asked", "by"), part(row, "lift_asked", "reason")
        say(f"to be lifted, says {by}: {why}")
    _show_in_flight(body)


def _until(row: JsonObject) -> str:
    if row["lifted_us"] is not None:
        return f"lifted {when(row['lifted_us'])} by {cell(row['lifted_by']).plain}"
    return "lifted" if row["expires_us"] is None else str(when(row["expires_us"]))


def _show_in_flight(body: JsonObject) -> None:
    table(
        ("call under way", "tool", "environment", "workflow", "since"),
        [
            (
                row["effect_id"],
                row["tool"],
                row["environment"],
                row["workflow"],
                when(row["since_us"]),
            )
            for row in rows_of(body, "in_flight")
        ],
        empty="no calls of it are under way",
    )


def _scope(parts: Sequence[str]) -> JsonObject:
    scope: JsonObject = {}
    for text in parts:
        name, _, value = text.partition("=")
        if text == _WRITES:
            scope["writes_only"] = True
        elif name and value and name not in scope:
            scope[name] = value
        else:
            raise InputError(f"`{text}` is no part of what is stopped, name it once: {_WORDS}")
    return scope
