"""`interlock workflow`: the workflows of the live release."""

from __future__ import annotations

from typing import Annotated

import typer

from interlock.cli.output import (
    AsJson,
    connected,
    fact,
    rows_of,
    say,
    show_json,
    table,
    tells_errors,
)
from interlock.domain.canonical import JsonObject

WorkflowArgument = Annotated[str, typer.Argument(metavar="NAME", help="The workflow's name.")]
app = typer.Typer(help="The live workflows.", no_args_is_help=True)


@app.command("list")
@tells_errors
def list_workflows(*, as_json: AsJson = False) -> None:
    """List workflows."""
    with connected() as client:
        body = client.get("workflows")
    if as_json:
        show_json(body)
        return
    columns = ("name", "version", "title", "owner", "department")
    table(
        columns,
        [tuple(flow[column] for column in columns) for flow in rows_of(body, "workflows")],
        empty="no workflows yet; apply a project with `interlock apply FOLDER`",
    )


@app.command("show")
@tells_errors
def show_workflow(name: WorkflowArgument, *, as_json: AsJson = False) -> None:
    """Show one workflow: triggers, steps, seats, approvals, fallbacks, success criteria."""
    with connected() as client:
        body = client.get("workflows", name)
    if as_json:
        show_json(body)
        return
    say(f"{body['name']} v{body['version']}: {body['title']}", style="bold")
    fact("owner", body["owner"])
    fact("department", body["department"])
    for title, rows in _sections(body):
        say(f"  {title}", style="bold")
        for row in rows:
            say(f"    {row}")


def _sections(flow: JsonObject) -> list[tuple[str, list[str]]]:
    autonomy = flow["autonomy"] if isinstance(flow["autonomy"], dict) else {}
    success = flow["success"] if isinstance(flow["success"], dict) else {}
    levels = [
        f"{env}: level {level['level']} by {level['by']}: {level['reason']}"
        for env, level in autonomy.items()
        if isinstance(level, dict)
    ]
    return [
        ("triggers", [_trigger(t) for t in rows_of(flow, "triggers")]),
        ("steps", [_step(s) for s in rows_of(flow, "steps")]),
        ("seats", [f"{s['agent']}: {_listed(s['tools'])}" for s in rows_of(flow, "seats")]),
        (
            "approvals",
            [f"{a['tool']} by {a['group']}: {a['why']}" for a in rows_of(flow, "approvals")],
        ),
        (
            "if it fails",
            [
                f"{m['code']}: {m['then']} {m['target'] or m['end'] or ''}".rstrip()
                for m in rows_of(flow, "failure_modes")
            ],
        ),
        ("success", [_success(success)]),
        (
            "autonomy",
            levels or ["level 0 in dev: drafts only; elsewhere see `interlock autonomy show`"],
        ),
    ]


def _success(success: JsonObject) -> str:
    share, within = success.get("objective"), success.get("within_s")
    within_s = f"{within:g}" if isinstance(within, int | float) else "-"
    return f"ends in {_listed(success.get('end_states'))}, {share} of runs within {within_s} s"


def _trigger(trigger: JsonObject) -> str:
    what = trigger["source"] or trigger["schedule"] or ""
    return f"{trigger['name']}: {trigger['kind']} {what}".rstrip() + f" in {trigger['environment']}"


def _step(step: JsonObject) -> str:
    kinds = ("agent", "handoff", "tool", "wait", "plan")
    kind = next((kind for kind in kinds if step[kind]), "step")
    return f"{step['name']}: {kind} {step[kind]}"


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) and value else "none"
