"""`interlock trigger`: what starts runs, and pausing or firing a schedule."""

from __future__ import annotations

from typing import Annotated

import typer

from interlock.cli.output import connected, out, part, rows_of, show_json, table, tells_errors, when

app = typer.Typer(help="Triggers: what starts runs.", no_args_is_help=True)
Workflow = Annotated[str, typer.Argument(metavar="WORKFLOW")]
Name = Annotated[str, typer.Argument(metavar="TRIGGER")]


@app.command("list")
@tells_errors
def list_(*, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
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
                part(row, "trigger", "source") or part(row, "trigger", "schedule"),
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
def show(workflow: Workflow, name: Name) -> None:
    """Show one trigger."""
    with connected() as client:
        show_json(client.get(f"triggers/{workflow}/{name}"))


@app.command()
@tells_errors
def pause(workflow: Workflow, name: Name) -> None:
    """Let a schedule fire no more until it is resumed."""
    with connected() as client:
        client.post(f"triggers/{workflow}/{name}/pause")
    out.print("paused")


@app.command()
@tells_errors
def resume(workflow: Workflow, name: Name) -> None:
    """Let a paused schedule fire again."""
    with connected() as client:
        client.post(f"triggers/{workflow}/{name}/resume")
    out.print("resumed")


@app.command()
@tells_errors
def fire(workflow: Workflow, name: Name) -> None:
    """Start one run of a schedule now; prints its id."""
    with connected() as client:
        body = client.post(f"triggers/{workflow}/{name}/fire")
    out.print(str(body["run_id"]))
