"""`interlock policy`, `who-can` and `can`: why a call was decided so, and what could be called."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from interlock.cli import policy_tests
from interlock.cli.commands.effects import EffectArgument
from interlock.cli.output import (
    AsJson,
    connected,
    fact,
    note,
    part,
    progress,
    rows_of,
    say,
    settings,
    show_json,
    table,
    tells_errors,
    texts_of,
    when,
)
from interlock.domain.approval import in_words
from interlock.domain.canonical import Json, JsonObject, canonical_text
from interlock.domain.errors import InputError
from interlock.domain.record import object_to_json
from interlock.manifest import files

app = typer.Typer(help="Policy: what it was asked and what it said.", no_args_is_help=True)
_WIDTH = 20
_LEFT_OUT = (
    ("moved", "were answered in another way when they were made: policies have changed since"),
    ("beside_policy", "were answered before any policy was asked"),
    ("unreadable", "are not kept whole and cannot be decided again"),
)
_MAY = {"allow": "unattended", "draft": "as a draft only"}
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The project folder.")]
Env = Annotated[str | None, typer.Option("--env", help="One environment; all if not said.")]


class Act(StrEnum):
    """What is done: a group of tools. Destructive ones write too; what leaves us is egress."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"
    EGRESS = "egress"


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


@app.command()
@tells_errors
def check(folder: Folder = Path()) -> None:
    """Check the policies of a project folder, and all that they name; needs no installation."""
    release = policy_tests.project(folder, settings())
    say(f"{len(release.policies)} policy files mean what they say", style="green")


@app.command("test")
@tells_errors
def run_tests(folder: Folder = Path(), *, as_json: AsJson = False) -> None:
    """Decide the calls and prove the statements of policies/tests; exit code 1 unless all hold.

    Needs no installation.
    """
    judged: list[JsonObject] = []
    for each in policy_tests.run(folder, settings()):
        judged.append(object_to_json(each))
        if not as_json:
            mark, style = ("✓", "green") if each.verdict == "holds" else ("✗", "red")
            say(f"{mark} {each.name}", style=style)
            if each.why:
                say(f"    {each.verdict}: {each.why}")
    held = sum(each["verdict"] == "holds" for each in judged)
    if as_json:
        show_json({"tests": [*judged]})
    else:
        say(f"{held} of {len(judged)} hold")
    if held != len(judged):
        raise typer.Exit(1)


@app.command()
@tells_errors
def backtest(
    candidate: Annotated[
        Path, typer.Option(help="The project folder with the policies to try.")
    ] = Path(),
    since: Annotated[str, typer.Option(help="A time span as 90s, 15m, 1h or 7d.")] = "7d",
    *,
    no_widening: Annotated[
        bool, typer.Option(help="Exit with 1 if a recorded call or a seat may do more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What other policies would have said to the calls that were made; applies nothing."""
    body: JsonObject = {"files": {**files.read_folder(candidate)}, "since": since}
    with connected() as client, progress("deciding again") as heard:
        last = client.follow("project", "backtest", body=body, heard=heard)
    report = last["report"]
    # INVARIANT: a back-test that does not end with an error ends with its report.
    assert isinstance(report, dict)
    if as_json:
        show_json(report)
    else:
        _print_backtest(report)
    told = [*_flips(report), *rows_of(report, "rights")]
    if no_widening and any(each["is_widening"] for each in told):
        raise typer.Exit(1)


@app.command()
@tells_errors
def observed(
    since: Annotated[str, typer.Option(help="A time span as 90s, 15m, 1h or 7d.")] = "7d",
    *,
    as_json: AsJson = False,
) -> None:
    """What policies in observe mode would have held back, and did not."""
    with connected() as client:
        body = client.get("questions", "observed", since=since)
    if as_json:
        show_json(body)
        return
    table(
        ("policy", "calls", "runs", "let through", "tools", "for instance"),
        [
            (
                row["policy_id"],
                row["calls"],
                row["runs"],
                row["let_through"],
                row["tools"],
                row["examples"],
            )
            for row in rows_of(body, "policies")
        ],
        empty="nothing: no policy in observe mode held for any call",
    )


def _flips(report: JsonObject) -> list[JsonObject]:
    replayed = report["replayed"]
    # INVARIANT: as the report is made.
    assert isinstance(replayed, dict)
    return rows_of(replayed, "flips")


def _print_backtest(report: JsonObject) -> None:
    flips, replayed = _flips(report), part(report, "replayed")
    say(f"{report['total']} decisions since {when(report['since_us'])}", style="bold")
    for title, is_widening in (("Would be let through", True), ("Would be held back", False)):
        chosen = [flip for flip in flips if flip["is_widening"] == is_widening]
        if chosen:
            say(f"\n{title}")
        for flip in chosen:
            _print_flip(flip)
    say(f"\n{part(replayed, 'unchanged')} are decided as now")
    for name, words in _LEFT_OUT:
        count = report["unreadable"] if name == "unreadable" else part(replayed, name)
        if count:
            say(f"{count} {words}")
    if report["text"]:
        say(str(report["text"]))


def _print_flip(flip: JsonObject) -> None:
    before, after = (_answered(flip[side]) for side in ("before", "after"))
    tools, by = (" ".join(texts_of(flip, name)) for name in ("tools", "by"))
    sign = "+" if flip["is_widening"] else "-"
    how_many = f"{_counted(flip, 'calls')} of {_counted(flip, 'runs')}"
    say(f"  {sign} {how_many}: {before} -> {after}  by {by}")
    say(f"      {tools}: {' '.join(texts_of(flip, 'examples'))}")


def _counted(flip: JsonObject, what: str) -> str:
    return f"{flip[what]} {what if flip[what] != 1 else what.removesuffix('s')}"


def _answered(way: Json) -> str:
    # INVARIANT: a flip names two answers.
    assert isinstance(way, dict)
    return "denied" if way["outcome"] == "deny" else _may(way)


def _print_decision(decided: JsonObject) -> None:
    request, decision = decided["request"], decided["decision"]
    # INVARIANT: a decision is stored with its question and its answer.
    assert isinstance(request, dict)
    assert isinstance(decision, dict)
    say(f"{when(decided['at_us'])}  {decision['outcome']}", style="bold")
    for reason in rows_of(decision, "reasons"):
        say(f"  {reason['policy_id'] or reason['code']}: {reason['message']}")
    for reason in rows_of(decision, "observed"):
        say(f"  observed {reason['policy_id'] or reason['code']}: {reason['message']}")
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
    since: Annotated[
        str | None, typer.Option(help="Tell what changed in a time span as 90s, 15m, 1h or 7d.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Which seats could do it at all, by the live policies: unattended, by approval, as drafts."""
    asked = {"group": act.value, "system": system, "tool": tool, "environment": env}
    with connected() as client:
        if since is not None:
            told = client.get("capabilities", "history", **asked, since=since)
            _print_history(told, as_json=as_json)
            return
        body = client.get("capabilities", **asked)
    if as_json:
        show_json(body)
        return
    rows = rows_of(body, "capabilities")
    _print_ways(
        rows, ("seat", "tool", "environment"), empty="nobody: no policy lets any seat do it"
    )
    _print_trust(body, rows)


def _print_history(body: JsonObject, *, as_json: bool) -> None:
    if as_json:
        show_json(body)
        return
    for release in rows_of(body, "releases"):
        asked = f", asked for by {release['asked_by']}" if release["asked_by"] else ""
        say(
            f"release {release['number']}  {when(release['applied_us'])}  applied by"
            f" {release['applied_by']}{asked}",
            style="bold",
        )
        say(str(release["text"]).strip("\n"))
        say("")
    if not rows_of(body, "releases"):
        say(f"nothing has changed since {when(body['since_us'])}")


@tells_errors
def can(
    seat: Annotated[str | None, typer.Argument(help="A seat, as WORKFLOW/AGENT.")] = None,
    tool: Annotated[str | None, typer.Argument(help="One tool, with all conditions.")] = None,
    env: Env = None,
    *,
    unused: Annotated[
        bool, typer.Option("--unused", help="Tools that it, or any seat, has and does not call.")
    ] = False,
    since: Annotated[str, typer.Option(help="Not called for so long: 90s, 15m, 1h, 7d.")] = "30d",
    names: Annotated[bool, typer.Option("--list", help="Only names, as it is told.")] = False,
    as_json: AsJson = False,
) -> None:
    """What one seat could call at all, by the live policies, and under which conditions."""
    asked = {"seat": seat, "tool": tool, "environment": env}
    if unused:
        _unused(asked | {"since": since}, as_json=as_json)
        return
    if seat is None:
        msg = "name a seat as WORKFLOW/AGENT, or ask for `--unused`"
        raise InputError(msg)
    with connected() as client:
        body = client.get("capabilities", **asked)
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


def _unused(asked: dict[str, str | None], *, as_json: bool) -> None:
    with connected() as client:
        body = client.get("capabilities", "unused", **asked)
    if as_json:
        show_json(body)
        return
    table(
        ("seat", "tool", "environment", "group", "last called"),
        [
            (
                *(row[name] for name in ("seat", "tool", "environment", "group")),
                None if row["last_us"] is None else when(row["last_us"]),
            )
            for row in rows_of(body, "unused")
        ],
        empty=f"nothing: each tool was called since {when(body['since_us'])}",
    )


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
        return f"approved by {' and '.join(in_words(str(group)) for group in groups)}"
    return _MAY[str(way["outcome"])]


def _never(row: JsonObject) -> str:
    blocked = row["blocked"]
    return "never" if blocked is None else f"not now: {blocked}"
