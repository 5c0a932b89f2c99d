"""`interlock autonomy`: how far workflows act by themselves, and what earns them more."""

from __future__ import annotations

from typing import Annotated

import typer

from interlock.cli.output import (
    AsJson,
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
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError

app = typer.Typer(
    help="How far workflows act by themselves, and what earns them more.", no_args_is_help=True
)
Workflow = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.")]
Env = Annotated[str, typer.Option("--env", help="`stage` or `prod`.")]
_UNDONE = "undone"
_COLUMNS = ("workflow", "environment", "level", "meaning", "since", "by", "reason")


@app.command()
@tells_errors
def show(
    workflow: Annotated[
        str | None, typer.Argument(metavar="WORKFLOW", help="One workflow, with its history.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the level of each workflow and environment: since which release, by whom and why."""
    with connected() as client:
        body = client.get("autonomy", *([] if workflow is None else [workflow]))
    if as_json:
        show_json(body)
        return
    rows = rows_of(body, "levels")
    table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows], empty="no workflows")
    for row in rows:
        if isinstance(row.get("asked"), dict):
            by, level = part(row, "asked", "by"), part(row, "asked", "level")
            say(f"{row['environment']}: `{by}` asks for level {level}; a second person confirms it")
        for change in rows_of(row, "history") if "history" in row else []:
            say(f"  {when(change['at_us'])}  {row['environment']}  {_told(change)}")


@app.command()
@tells_errors
def evidence(workflow: Workflow, env: Env, *, as_json: AsJson = False) -> None:
    """Show what a workflow has shown for its next level, and what is missing; changes nothing."""
    with connected() as client:
        found = client.get("autonomy", workflow, env, "evidence")
    if as_json:
        show_json(found)
    else:
        _show(found)


@app.command()
@tells_errors
def review(
    effect: Annotated[str, typer.Argument(metavar="EFFECT", help="The next one for review.")],
    *,
    agree: Annotated[
        bool | None, typer.Option("--agree/--disagree", help="Whether you would leave it so.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--note", help="What is wrong with it, if you disagree.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether you would have left a draft, or an unattended write, as it is."""
    if agree is None:
        raise InputError("say `--agree` or `--disagree`")
    body: JsonObject = {"effect_id": effect, "is_agreed": agree, "note": text}
    with connected() as client:
        said = client.post("autonomy", "reviews", body=body)
    if as_json:
        show_json(said)
    else:
        say(f"{effect}: {'as you would have it' if agree else 'not as you would have it'}")


@app.command()
@tells_errors
def promote(
    workflow: Workflow,
    env: Env,
    reason: Annotated[str, typer.Option(help="Why it may do more; it is kept.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Raise a level by one step: one person asks, another confirms; both find the evidence met."""
    with connected() as client:
        done = client.post("autonomy", workflow, env, "promote", body={"reason": reason})
    if as_json:
        show_json(done)
        return
    found = done["evidence"]
    # INVARIANT: each answer carries the evidence that it rests on.
    assert isinstance(found, dict)
    _show(found)
    if isinstance(done["change"], dict):
        say(f"{workflow} in {env}: {_told(done['change'])}", style="bold")
        return
    note(
        f"not raised yet: `{part(done, 'asked', 'by')}` has asked for level"
        f" {part(done, 'asked', 'level')}; another owner gives the same command within a day"
    )


@app.command()
@tells_errors
def demote(  # as the terminal names them
    workflow: Workflow,
    env: Env,
    to: Annotated[int, typer.Option(min=0, max=2, help="The level that it has at most.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Lower a level at once; runs under way feel it at their next call."""
    with connected() as client:
        change = client.post(
            "autonomy", workflow, env, "demote", body={"level": to, "reason": reason}
        )
    if as_json:
        show_json(change)
    else:
        say(f"{workflow} in {env}: {_told(change)}", style="bold")


def _show(found: JsonObject) -> None:
    heading = f"{found['workflow']} in {found['environment']}: level {found['level']}"
    say(f"{heading}, shown for level {found['step']} since release {found['counted_from']}")
    bar, faults = found["bar"], found["faults"]
    # INVARIANT: evidence has both.
    assert isinstance(bar, dict)
    assert isinstance(faults, dict)
    suites = found["suites"] if isinstance(found["suites"], dict) else {}
    rows: list[list[Json]] = [
        [str(found["kind"]), found["done"], bar["count"]],
        ["of them judged", found["judged"], "-"],
        ["left as they were", found["agreed"], "-"],
        ["that is at least, of all", found["agreement"], bar["agreement"]],
        ["days since the first", found["days"], bar["days"]],
        *([f"suite {name}", verdict, "pass"] for name, verdict in suites.items()),
        *(
            [name.replace("_", " "), count, "0"]
            for name, count in faults.items()
            if name != _UNDONE
        ),
        ["writes undone", faults[_UNDONE], "-"],
    ]
    table(("what", "is", "needed"), rows, empty="nothing")
    missing = found["missing"] if isinstance(found["missing"], list) else []
    for each in missing:
        say(f"missing: {each}", style="red")
    if not missing:
        say("nothing is missing", style="green")
    reviews = found["reviews"]
    if isinstance(reviews, list) and reviews:
        say(f"next to review: {reviews[0]}")


def _told(change: JsonObject) -> str:
    signed = f", confirmed by {change['confirmed_by']}" if change["confirmed_by"] else ""
    return (
        f"level {change['before']} -> {change['after']} in release {change['release']}"
        f" by {change['by']}{signed}: {change['reason']}"
    )
