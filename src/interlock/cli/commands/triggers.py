"""`interlock trigger`: what starts runs, and pausing or firing a schedule."""

from __future__ import annotations

from typing import Annotated

import typer

from interlock.cli.output import (
    AsJson,
    cell,
    connected,
    fact,
    note,
    part,
    rows_of,
    say,
    show_json,
    table,
    tells_errors,
    when,
)
from interlock.domain.canonical import Json, JsonObject

app = typer.Typer(help="Triggers: what starts runs.", no_args_is_help=True)
Workflow = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.")]
Name = Annotated[str, typer.Argument(metavar="TRIGGER", help="The trigger's name in it.")]


@app.command("list")
@tells_errors
def list_(*, as_json: AsJson = False) -> None:
    """List triggers; schedules with their last and next tick."""
    with connected() as client:
        body = client.get("triggers")
    if as_json:
        show_json(body)
        return
    table(
        ("workflow", "trigger", "kind", "source", "environment", "paused", "last", "next"),
        [
            (
                row["workflow"],
                part(row, "trigger", "name"),
                part(row, "trigger", "kind"),
                _source(row),
                part(row, "trigger", "environment"),
                row["is_paused"],
                when(row["last_us"]),
                when(row["next_us"]),
            )
            for row in rows_of(body, "triggers")
        ],
        empty="no triggers yet; apply a project with `interlock apply FOLDER`",
    )


@app.command()
@tells_errors
def show(workflow: Workflow, name: Name, *, as_json: AsJson = False) -> None:
    """Show one trigger: where its events come from, where they go, what it did last."""
    with connected() as client:
        body = client.get("triggers", workflow, name)
    if as_json:
        show_json(body)
        return
    say(f"{workflow}/{name}", style="bold")
    kind = part(body, "trigger", "kind")
    fact("kind", kind)
    fact("environment", part(body, "trigger", "environment"))
    if kind != "manual":
        fact("source", _source(body))
    for member in ("dedupe", "dead_letter"):
        if kind == "queue":
            fact(member.replace("_", " "), part(body, "trigger", "queue", member) or "-")
    for condition in rows_of(_trigger(body), "when"):
        wanted = condition["is_in"] or [condition["equals"]]
        say(f"  only if {condition['at']} is {cell(wanted).plain}")
    if kind == "cron":
        fact("time zone", part(body, "trigger", "timezone"))
        fact("catch-up", part(body, "trigger", "catch_up"))
        fact("paused", body["is_paused"])
        fact("last", when(body["last_us"]))
        fact("next", when(body["next_us"]))


@app.command()
@tells_errors
def pause(workflow: Workflow, name: Name) -> None:
    """Let a schedule fire no more until it is resumed."""
    with connected() as client:
        client.post("triggers", workflow, name, "pause")
    say("paused")


@app.command()
@tells_errors
def resume(workflow: Workflow, name: Name) -> None:
    """Let a paused schedule fire again."""
    with connected() as client:
        client.post("triggers", workflow, name, "resume")
    say("resumed")


@app.command()
@tells_errors
def fire(workflow: Workflow, name: Name) -> None:
    """Start one run of a schedule now; prints its id."""
    with connected() as client:
        fired = client.post("triggers", workflow, name, "fire")
        if not client.is_remote:
            note("no server runs; the run waits for `interlock serve`")
    say(str(fired["run_id"]))


def _trigger(row: JsonObject) -> JsonObject:
    found = row["trigger"]
    return found if isinstance(found, dict) else {}


def _source(row: JsonObject) -> Json:
    return part(row, "trigger", "source") or part(row, "trigger", "schedule")
