"""`interlock run`: list, show, start, watch, signal, stop and undo runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from interlock.cli.client import Client
from interlock.cli.output import (
    AsJson,
    connected,
    note,
    out,
    part,
    rows_of,
    say,
    show_json,
    table,
    tells_errors,
    when,
)
from interlock.cli.run_view import (
    SET_ASIDE,
    print_changes,
    print_cost,
    print_plans,
    print_run,
    trace_tree,
)
from interlock.domain.canonical import JsonObject, canonical_text, parse
from interlock.domain.errors import InputError, JsonError, UnavailableError
from interlock.domain.run import RunState
from interlock.domain.tool import Environment

app = typer.Typer(help="Runs: what they did, what they do, what remains.", no_args_is_help=True)
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
_ENDED = frozenset({"succeeded", "failed", "cancelled", "dead_lettered"})
_LOOK_EVERY_S = 0.5


@app.command("list")
@tells_errors
def list_(
    workflow: Annotated[str | None, typer.Option(help="Only this workflow.")] = None,
    state: Annotated[list[RunState] | None, typer.Option(help="Only these states.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    states = [str(one) for one in state or ()]
    with connected() as client:
        body = client.get("runs", workflow=workflow, state=states, limit=limit)
    if as_json:
        show_json(body)
        return
    found = rows_of(body, "runs")
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
            for run in found
        ],
        empty="no run is like that"
        if workflow or states
        else "no runs yet; start one with `interlock run start WORKFLOW` or send an event",
    )
    if any(run["state"] == "dead_lettered" for run in found):
        note(SET_ASIDE)


@app.command()
@tells_errors
def show(
    run_id: RunArgument,
    *,
    trace: Annotated[bool, typer.Option("--trace", help="Print the tree of spans.")] = False,
    cost: Annotated[
        bool, typer.Option("--cost", help="Print what each model request and call has cost.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a run: its steps, what it waits for and, with --trace, everything it did."""
    with connected() as client:
        body = client.get("runs", run_id, *(["trace"] if trace or cost else []))
    if as_json:
        show_json(body)
    elif cost:
        print_cost(body)
    elif trace:
        out.print(trace_tree(body))
    else:
        print_run(body)


@app.command()
@tells_errors
def plan(run_id: RunArgument, *, as_json: AsJson = False) -> None:
    """Show the plans of a run: each call, what policy said, what is done and what remains."""
    with connected() as client:
        body = client.get("runs", run_id, "plan")
    plans = rows_of(body, "plans")
    if as_json:
        show_json(body)
    elif plans:
        print_plans(plans)
    else:
        say("no plan was proposed in this run")


@app.command()
@tells_errors
def start(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.")],
    *,
    input_file: Annotated[
        Path | None, typer.Option("--input", help="A JSON file with the run's input.")
    ] = None,
    environment: Annotated[
        Environment | None, typer.Option(help="Else the one of the settings.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The same key again names the same run.")] = None,
) -> None:
    """Start a run by hand; prints its id."""
    value: JsonObject = {}
    if input_file is not None:
        value = _read_object(input_file)
    with connected() as client:
        body: JsonObject = {"workflow": workflow, "environment": environment, "input": value}
        started = client.post("runs", body=body, key=key)
        if not client.is_remote:
            note("no server runs; the run waits for `interlock serve`")
    say(str(started["run_id"]))


@app.command()
@tells_errors
def watch(
    run_id: RunArgument,
    *,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Give up after seconds.")] = 600.0,
) -> None:
    """Follow a run until it ends; exit code 0 if it succeeded, 1 if it ended otherwise."""
    deadline_s = time.monotonic() + timeout_s
    seen: dict[str, str] = {}
    with connected() as client:
        while True:
            run = _look(client, run_id, deadline_s)
            print_changes(run, seen, waits_for=_waits_for(client, run))
            if run["state"] in _ENDED:
                raise typer.Exit(0 if run["state"] == "succeeded" else 1)
            if not client.is_remote:
                msg = "no server runs, so nothing goes on; start `interlock serve`"
                raise UnavailableError(msg)
            if time.monotonic() > deadline_s:
                msg = f"the run is still `{run['state']}` after {timeout_s:g} s"
                raise UnavailableError(msg)
            time.sleep(_LOOK_EVERY_S)


@app.command()
@tells_errors
def cancel(run_id: RunArgument) -> None:
    """Ask a run and its children to stop; nothing new is sent after the current call."""
    with connected() as client:
        body = client.post("runs", run_id, "cancel")
    say("cancelling" if body["is_cancelling"] else "the run has ended already")


@app.command()
@tells_errors
def pause(run_id: RunArgument) -> None:
    """Let a run and its children stand still: what was sent is recorded, nothing new is sent."""
    with connected() as client:
        body = client.post("runs", run_id, "pause")
    if body["is_pausing"]:
        say(f"pausing; `interlock run resume {run_id}` lets it go on")
    else:
        say("there is nothing to pause: the run has ended, or stands still already")


@app.command()
@tells_errors
def resume(run_id: RunArgument) -> None:
    """Let a paused or dead-lettered run and its children go on."""
    with connected() as client:
        body = client.post("runs", run_id, "resume")
    say("going on" if body["is_resumed"] else "the run is neither paused nor dead-lettered")


@app.command()
@tells_errors
def signal(
    run_id: RunArgument,
    topic: Annotated[str, typer.Argument(help="What a `wait` step of the workflow waits for.")],
    *,
    value: Annotated[str, typer.Option(help="What the step returns, as JSON.")] = "null",
    key: Annotated[str | None, typer.Option(help="Signals with the same key are one.")] = None,
) -> None:
    """Send a signal to a run; it is kept until the run waits for it."""
    try:
        parsed = parse(value)
    except JsonError as error:
        msg = f"the value is no JSON: {error.message}"
        raise InputError(msg) from None
    with connected() as client:
        body = client.post(
            "runs", run_id, "signals", body={"topic": topic, "value": parsed}, key=key
        )
    say("sent" if body["is_new"] else "a signal with this key was sent before")


@app.command()
@tells_errors
def compensate(
    run_id: RunArgument,
    *,
    preview: Annotated[bool, typer.Option("--preview", help="Only say what it would do.")] = False,
) -> None:
    """Undo the effects of an ended run, latest first; each undo is governed like any call."""
    with connected() as client:
        undone = rows_of(client.get("runs", run_id, "compensation"), "effects")
        table(
            ("effect", "tool", "will be undone", "why not"),
            [(undo["effect_id"], undo["tool"], undo["is_undone"], undo["why"]) for undo in undone],
            empty="the run has no effects to undo",
        )
        if preview or not any(undo["is_undone"] for undo in undone):
            return
        started = client.post("runs", run_id, "compensate")
    say(f"undo run {started['run_id']} started; follow it with `interlock run watch`")


@app.command()
@tells_errors
def blackboard(run_id: RunArgument, *, as_json: AsJson = False) -> None:
    """Show what the agents of a run tree share: each version with writer and labels."""
    with connected() as client:
        body = client.get("runs", run_id, "blackboard")
    if as_json:
        show_json(body)
        return
    table(
        ("key", "version", "writer", "labels", "when", "value"),
        [
            (
                entry["key"],
                entry["version"],
                entry["writer"],
                part(entry, "labels", "names"),
                when(entry["at_us"]),
                canonical_text(entry["value"]),
            )
            for entry in rows_of(body, "entries")
        ],
        empty="nothing is shared",
    )


def _waits_for(client: Client, run: JsonObject) -> str | None:
    """Return what a waiting run waits for in the end: below it, if it waits for a child run."""
    reason = run["reason"] if run["state"] == "waiting" else None
    kind, _, name = str(reason or "").partition("/")
    if kind == "child":
        child = client.get("runs", name)
        below = _waits_for(client, child)
        return f"run {name}" if below is None else f"{below} in run {name}"
    return None if reason is None else f"{kind} {name}".rstrip()


def _read_object(file: Path) -> JsonObject:
    try:
        value = parse(file.read_bytes())
    except JsonError as error:
        msg = f"`{file}`: {error.message}"
        raise InputError(msg) from None
    if not isinstance(value, dict):
        msg = f"`{file}` holds no JSON object"
        raise InputError(msg)
    return value


def _look(client: Client, run_id: str, deadline_s: float) -> JsonObject:
    """Return the run, also if the server is being restarted meanwhile."""
    is_told = False
    while True:
        try:
            return client.get("runs", run_id)
        except UnavailableError:
            if time.monotonic() > deadline_s:
                raise
        if not is_told:
            note("the server does not answer; asking again")
        is_told = True
        time.sleep(_LOOK_EVERY_S)


def _who(run: JsonObject) -> str:
    agent = part(run["request"], "agent")
    name = str(part(run["request"], "workflow"))
    return f"{name}/{agent}" if agent else name
