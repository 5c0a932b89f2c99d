"""`interlock policy`, `who-can` and `can`: why a call was decided so, and what could be called."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from interlock.cli.commands.effects import EffectArgument
from interlock.cli.output import (
    AsJson,
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
from interlock.domain.canonical import Json, JsonObject, canonical_text

app = typer.Typer(help="Policy: what it was asked and what it said.", no_args_is_help=True)
_WIDTH = 20
_MAY = {"allow": "unattended", "draft": "as a draft only"}
Env = Annotated[str | None, typer.Option("--env", help="One environment; all if not said.")]


class Act(StrEnum):
    """What is done: a group of tools. Destructive ones write too; what leaves us is egress."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"
    EGRESS = "egress"


@app.callback()
def _policies() -> None:
    """Keep `policy` a group although it has one command so far."""


@app.command()
@tells_errors
def explain(effect_id: EffectArgument, *, as_json: AsJson = False) -> None:
    """Show each question that a call put to policy, all facts of it, and the answer."""
    with connected() as client:
        body = client.get("effects", effect_id)
    decided = rows_of(body, "decisions")
    if as_json:
        show_json({"decisions": list(decided)})
        return
    if not decided:
        say(f"policy was not asked: {body['error_message'] or body['state']}")
    for decision in decided:
        _print_decision(decision)


def _print_decision(decided: JsonObject) -> None:
    request, decision = decided["request"], decided["decision"]
    # INVARIANT: a decision is stored with its question and its answer.
    assert isinstance(request, dict)
    assert isinstance(decision, dict)
    say(f"{when(decided['at_us'])}  {decision['outcome']}", style="bold")
    for reason in rows_of(decision, "reasons"):
        say(f"  {reason['policy_id'] or reason['code']}: {reason['message']}")
    seats = [f"{seat['workflow']}/{seat['agent']}" for seat in rows_of(request, "seats")]
    told: JsonObject = {
        "who": list[Json](seats),
        "what": f"{decided['tool']} v{decided['tool_version']}",
        "where": request["environment"],
        "arguments": canonical_text(request["arguments"]),
        **_facts(request["facts"]),
        "agreed by": request["lifted"],
        "asks": decision["groups"],
        "policy version": decision["policy_version"],
    }
    for name, value in told.items():
        fact(name, value, width=_WIDTH)


def _facts(facts: Json) -> JsonObject:
    if not isinstance(facts, dict):
        return {}
    found = {name.replace("_", " "): value for name, value in sorted(facts.items())}
    marks = part(facts, "labels", "names")
    untrusted: list[Json] = ["untrusted"] if part(facts, "labels", "is_untrusted") else []
    found["labels"] = [*(marks if isinstance(marks, list) else []), *untrusted]
    found["now"] = when(found.pop("now us"))
    return found


@tells_errors
def who_can(
    act: Annotated[Act, typer.Argument(metavar="ACT", help="read, write, destructive or egress.")],
    system: Annotated[str | None, typer.Option(help="Tools of one system.")] = None,
    tool: Annotated[str | None, typer.Option(help="One tool.")] = None,
    env: Env = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Which seats could do it at all, by the live policies: unattended, by approval, as drafts."""
    asked = {"group": act.value, "system": system, "tool": tool, "environment": env}
    with connected() as client:
        body = client.get("capabilities", **{k: v for k, v in asked.items() if v is not None})
    if as_json:
        show_json(body)
        return
    rows = rows_of(body, "capabilities")
    _print_ways(
        rows, ("seat", "tool", "environment"), empty="nobody: no policy lets any seat do it"
    )
    _print_trust(body, rows)


@tells_errors
def can(
    seat: Annotated[str, typer.Argument(help="A seat, as WORKFLOW/AGENT.")],
    tool: Annotated[str | None, typer.Argument(help="One tool, with all conditions.")] = None,
    env: Env = None,
    *,
    names: Annotated[bool, typer.Option("--list", help="Only names, as it is told.")] = False,
    as_json: AsJson = False,
) -> None:
    """What one seat could call at all, by the live policies, and under which conditions."""
    asked = {"seat": seat, "tool": tool, "environment": env}
    with connected() as client:
        body = client.get("capabilities", **{k: v for k, v in asked.items() if v is not None})
    rows = rows_of(body, "capabilities")
    if as_json:
        show_json(body)
    elif names:
        for name in sorted({str(row["tool"]) for row in rows if row["ways"]}):
            say(name)
    elif tool is not None:
        for row in rows:
            _print_capability(row)
        if not rows:
            say(f"never: no policy lets `{seat}` call `{tool}`")
    else:
        _print_ways(rows, ("tool", "environment"), empty="nothing: it has no tool")
        _print_trust(body, rows)


def _print_ways(rows: Sequence[JsonObject], columns: tuple[str, ...], *, empty: str) -> None:
    table(
        (*columns, "may", "by"),
        [
            (*(row[name] for name in columns), may, by)
            for row in rows
            for may, by in _ways(row) or [(_never(row), None)]
        ],
        empty=empty,
    )


def _print_trust(body: JsonObject, rows: Sequence[JsonObject]) -> None:
    """Say what `perhaps` means if it was said."""
    if all(way["is_exact"] for row in rows for way in rows_of(row, "ways")):
        return
    if body["can_be_exact"]:
        note("perhaps: no example was found and none was ruled out; it may name too much")
    else:
        note("perhaps: install `interlock[verify]` for exact answers; this may name too much")


def _print_capability(row: JsonObject) -> None:
    say(f"{row['seat']}  {row['tool']}  {row['environment']}", style="bold")
    for way in rows_of(row, "ways"):
        ((may, by),) = _ways({"ways": [way]})
        fact(may, by, width=_WIDTH)
        if way["example"] is not None:
            fact("  for instance", _instance(way["example"]), width=_WIDTH)
    if not rows_of(row, "ways"):
        fact(_never(row), None, width=_WIDTH)
    for name in ("granted", "unless"):
        for condition in rows_of(row, name):
            fact(name, _told(condition), width=_WIDTH)


def _instance(example: Json) -> str:
    """Render a call by what of it policies read; the rest may be anything."""
    arguments, facts = part(example, "arguments"), part(example, "facts")
    said = f"with {canonical_text(arguments)}" if arguments else "with any arguments"
    return f"{said} while {canonical_text(facts)}" if facts else said


def _told(condition: JsonObject) -> str:
    said = f"{condition['policy_id']}: {condition['why']}"
    return f"{said}  [{condition['text']}]" if condition["text"] else said


def _ways(row: JsonObject) -> list[tuple[str, Json]]:
    """Return each way in words, with the policies that ask for it, or else that grant it."""
    granted: list[Json] = [each["policy_id"] for each in rows_of(row, "granted")]
    return [
        (
            ("" if way["is_exact"] else "perhaps ") + _may(way),
            way["by"] or granted,
        )
        for way in rows_of(row, "ways")
    ]


def _may(way: JsonObject) -> str:
    groups = way["groups"]
    if isinstance(groups, list) and groups:
        return f"approved by {' and '.join(map(str, groups))}"
    return _MAY[str(way["outcome"])]


def _never(row: JsonObject) -> str:
    blocked = row["blocked"]
    return "never" if blocked is None else f"not now: {blocked}"
