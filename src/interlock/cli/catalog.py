"""`interlock tool` and `interlock workflow`: what may run, as the live release has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from interlock.cli.output import cell, connected, out, rows_of, show_json, table, tells_errors
from interlock.domain.canonical import JsonObject, canonical_text
from interlock.tools import discover

tools = typer.Typer(help="The registry of tools.", no_args_is_help=True)
workflows = typer.Typer(help="The live workflows.", no_args_is_help=True)
imports = typer.Typer(help="Write manifests for review from what exists.", no_args_is_help=True)
tools.add_typer(imports, name="import")
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Folder = Annotated[Path, typer.Option("--out", help="The project folder to write to.")]
SystemName = Annotated[str, typer.Option("--system", help="The system that owns the tools.")]

_PROMISES = {
    "read": "changes nothing; may run twice",
    "keyed": "effectively once while the system honours our key",
    "conditional": "effectively once: the system refuses a second write; probed if in doubt",
    "probed": "effectively once if no pause outlasts the quiet time; looked up before a resend",
    "blind": "at most one call per authorisation; an unknown outcome needs a person",
}


@tools.command("list")
@tells_errors
def list_tools(*, as_json: AsJson = False) -> None:
    """List tools with version, owner, class, risk, labels and environments."""
    with connected() as client:
        body = client.get("tools")
    if as_json:
        show_json(body)
        return
    columns = (
        "name",
        "version",
        "group",
        "effect_class",
        "risk",
        "owner",
        "source_labels",
        "environments",
    )
    table(
        columns,
        [tuple(tool[column] for column in columns) for tool in rows_of(body, "tools")],
        empty="no tools yet; apply a project with `interlock apply FOLDER`",
    )


@tools.command("show")
@tells_errors
def show_tool(name: str, *, as_json: AsJson = False) -> None:
    """Show one tool: its promise, its contract, who may propose it."""
    with connected() as client:
        body = client.get(f"tools/{name}")
    if as_json:
        show_json(body)
        return
    out.print(Text(f"{body['name']} v{body['version']}", style="bold"))
    effect = body["effect"] if isinstance(body["effect"], dict) else {}
    effect_class = str(effect.get("effect_class"))
    environments = body["environments"]
    facts: JsonObject = {
        "title": body["title"],
        "owner": body["owner"],
        "group": body["group"],
        "risk": body["risk"],
        "effect class": effect_class,
        "promise": _PROMISES.get(effect_class),
        "undo": _name(body["compensation"]),
        "environments": list(environments) if isinstance(environments, dict) else None,
        "seats": body["seats"],
        "pin": body["pin"],
    }
    for label, value in facts.items():
        out.print(Text(f"  {label:<13}", style="dim") + cell(value))
    out.print(Text(f"  input        {canonical_text(body['input_schema'])}"))
    out.print(Text(f"  output       {canonical_text(body['output_schema'])}"))


@workflows.command("list")
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


@workflows.command("show")
@tells_errors
def show_workflow(name: str, *, as_json: AsJson = False) -> None:
    """Show one workflow: triggers, steps, seats, approvals, fallbacks, success criteria."""
    with connected() as client:
        body = client.get(f"workflows/{name}")
    if as_json:
        show_json(body)
        return
    out.print(Text(f"{body['name']} v{body['version']}: {body['title']}", style="bold"))
    for label in ("owner", "department"):
        out.print(Text(f"  {label:<12}", style="dim") + cell(body[label]))
    for title, rows in _sections(body):
        out.print(Text(f"  {title}", style="bold"))
        for row in rows:
            out.print(Text(f"    {row}"))


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
        (
            "success",
            [
                f"ends in {_listed(success.get('end_states'))}, "
                f"{success.get('objective')} of runs within {success.get('within_s')} s"
            ],
        ),
        ("autonomy", levels or ["level 0 everywhere: drafts only"]),
    ]


def _trigger(trigger: JsonObject) -> str:
    what = trigger["source"] or trigger["schedule"] or "by hand"
    return f"{trigger['name']}: {trigger['kind']} {what} -> {trigger['environment']}"


def _step(step: JsonObject) -> str:
    kinds = ("agent", "handoff", "tool", "wait")
    kind = next((kind for kind in kinds if step[kind]), "step")
    return f"{step['name']}: {kind} {step[kind]}"


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) and value else "none"


def _name(compensation: object) -> str | None:
    return str(compensation["tool"]) if isinstance(compensation, dict) else None
