"""`interlock policy`: why a call was decided as it was."""

from __future__ import annotations

import typer

from interlock.cli.commands.effects import EffectArgument
from interlock.cli.output import (
    AsJson,
    connected,
    fact,
    part,
    rows_of,
    say,
    show_json,
    tells_errors,
    when,
)
from interlock.domain.canonical import Json, JsonObject, canonical_text

app = typer.Typer(help="Policy: what it was asked and what it said.", no_args_is_help=True)
_WIDTH = 20


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
