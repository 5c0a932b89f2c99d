"""`interlock run`: list, show, start, watch, cancel and undo runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from interlock.cli.client import Client
from interlock.cli.output import (
    cell,
    connected,
    money,
    out,
    part,
    rows_of,
    show_json,
    table,
    tells_errors,
    when,
)
from interlock.domain.canonical import JsonObject, parse
from interlock.domain.errors import InputError

app = typer.Typer(help="Runs: what they did, what they do, what remains.", no_args_is_help=True)
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
_ENDED = frozenset({"succeeded", "failed", "cancelled", "dead_lettered"})
_MARKS = {
    "done": "✓",
    "running": "▸",
    "waiting": "◷",
    "failed": "✗",
    "skipped": "–",
    "to_come": "·",
}


@app.command("list")
@tells_errors
def list_(
    workflow: Annotated[str | None, typer.Option(help="Only this workflow.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only these states.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    with connected() as client:
        body = client.get("runs", workflow=workflow, state=state, limit=limit)
    if as_json:
        show_json(body)
        return
    table(
        ("run", "workflow", "state", "end", "started", "reason"),
        [
            (
                run["run_id"],
                _who(run),
                run["state"],
                run["end_state"],
                when(run["created_us"]),
                run["reason"] or run["error_message"],
            )
            for run in rows_of(body, "runs")
        ],
        empty="no runs yet; start one with `interlock run start WORKFLOW` or send an event",
    )


@app.command()
@tells_errors
def show(
    run_id: RunArgument,
    *,
    trace: Annotated[bool, typer.Option("--trace", help="Print the tree of spans.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a run: its steps, what it waits for and, with --trace, everything it did."""
    with connected() as client:
        body = client.get(f"runs/{run_id}/trace" if trace else f"runs/{run_id}")
    if as_json:
        show_json(body)
    elif trace:
        out.print(_tree(body))
    else:
        _print_run(body)


@app.command()
@tells_errors
def start(
    workflow: Annotated[str, typer.Argument(help="The workflow's name.")],
    input_file: Annotated[
        Path | None, typer.Option("--input", help="A JSON file with the run's input.")
    ] = None,
    *,
    environment: Annotated[str | None, typer.Option(help="dev, stage or prod.")] = None,
) -> None:
    """Start a run by hand; prints its id."""
    value: JsonObject = {}
    if input_file is not None:
        parsed = parse(input_file.read_bytes())
        if not isinstance(parsed, dict):
            msg = f"`{input_file}` holds no JSON object"
            raise InputError(msg)
        value = parsed
    with connected() as client:
        body = client.post(
            "runs", {"workflow": workflow, "environment": environment, "input": value}
        )
    out.print(str(body["run_id"]))


@app.command()
@tells_errors
def watch(
    run_id: RunArgument,
    *,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Give up after seconds.")] = 600.0,
) -> None:
    """Follow a run until it ends; exit code 0 if it succeeded, 1 if it ended otherwise."""
    deadline = time.monotonic() + timeout_s
    seen: dict[str, str] = {}
    with connected() as client:
        while True:
            body = client.get(f"runs/{run_id}")
            _print_changes(body, seen)
            if body["state"] in _ENDED:
                raise typer.Exit(0 if body["state"] == "succeeded" else 1)
            if time.monotonic() > deadline:
                msg = f"the run is still `{body['state']}` after {timeout_s:g} s"
                raise InputError(msg)
            time.sleep(0.5)


@app.command()
@tells_errors
def cancel(run_id: RunArgument) -> None:
    """Ask a run and its children to stop; nothing new is sent after the current call."""
    with connected() as client:
        body = client.post(f"runs/{run_id}/cancel")
    out.print("cancelling" if body["is_cancelling"] else "the run has ended already")


@app.command()
@tells_errors
def compensate(
    run_id: RunArgument,
    *,
    preview: Annotated[bool, typer.Option("--preview", help="Only say what it would do.")] = False,
) -> None:
    """Undo the effects of an ended run, latest first; each undo is governed like any call."""
    with connected() as client:
        body = client.get(f"runs/{run_id}/compensation")
        table(
            ("effect", "tool", "will be undone", "why not"),
            [
                (undo["effect_id"], undo["tool"], undo["is_undone"], undo["why"])
                for undo in rows_of(body, "effects")
            ],
            empty="the run has no effects to undo",
        )
        if not preview and rows_of(body, "effects"):
            _follow_undo(client, run_id)


def _follow_undo(client: Client, run_id: str) -> None:
    started = client.post(f"runs/{run_id}/compensate")
    out.print(f"undo run {started['run_id']} started; follow it with `interlock run watch`")


def _print_run(run: JsonObject) -> None:
    request = run["request"]
    out.print(Text(f"run {run['run_id']}", style="bold"))
    facts = (
        ("workflow", f"{part(request, 'workflow')} v{part(request, 'workflow_version')}"),
        ("environment", part(request, "environment")),
        ("trigger", f"{part(request, 'trigger', 'source')} {part(request, 'trigger', 'key')}"),
        ("state", run["state"]),
        ("end state", run["end_state"]),
        ("reason", run["reason"] or run["error_message"]),
        ("started", when(run["created_us"])),
        ("ended", when(run["ended_us"])),
        ("cost", money(run["cost_micro_usd"])),
    )
    for name, value in facts:
        if value not in (None, "-"):
            out.print(Text(f"  {name:<12}", style="dim") + cell(value))
    for step in rows_of(run, "steps"):
        mark = _MARKS.get(str(step["state"]), "?")
        out.print(Text(f"  {mark} {step['name']:<20} ") + cell(step["state"]))
    for wait in rows_of(run, "waits"):
        until = f" until {when(wait['due_us'])}" if wait["due_us"] is not None else ""
        out.print(Text(f"  waits for {wait['topic']}{until}", style="yellow"))


def _print_changes(run: JsonObject, seen: dict[str, str]) -> None:
    for step in rows_of(run, "steps"):
        name, state = str(step["name"]), str(step["state"])
        if seen.get(name) != state and state != "to_come":
            out.print(Text(f"{_MARKS.get(state, '?')} {name} {state}"))
        seen[name] = state
    state = str(run["state"])
    if seen.get("") != state:
        reason = f" ({run['reason']})" if run["reason"] else ""
        out.print(Text("run ") + cell(state) + Text(reason))
    seen[""] = state


def _tree(node: JsonObject) -> Tree:
    tree = Tree(_label(node))
    for child in rows_of(node, "children"):
        tree.add(_tree(child))
    return tree


def _label(node: JsonObject) -> Text:
    label = Text(str(node["name"]), style="bold" if node.get("parent_key") is None else "")
    for fact in ("state", "detail"):
        if node.get(fact):
            label += Text("  ") + cell(node[fact])
    duration = node.get("duration_us")
    if isinstance(duration, int):
        label += Text(f"  {duration / 1000:.0f} ms", style="dim")
    cost = node.get("cost_micro_usd")
    if isinstance(cost, int) and cost:
        label += Text(f"  {money(cost)}", style="dim")
    return label


def _who(run: JsonObject) -> str:
    request = run["request"]
    agent = part(request, "agent")
    name = str(part(request, "workflow"))
    return f"{name}/{agent}" if agent else name
