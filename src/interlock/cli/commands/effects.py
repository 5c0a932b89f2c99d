"""`interlock effect` and `interlock call`: the ledger, calls with their reasons, parked effects."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from interlock.cli.output import (
    AsJson,
    connected,
    fact,
    money,
    rows_of,
    say,
    show_json,
    table,
    tells_errors,
    when,
)
from interlock.domain.canonical import Json, JsonObject, canonical_text
from interlock.domain.effect import EffectState

app = typer.Typer(help="The ledger of effects.", no_args_is_help=True)
calls = typer.Typer(help="Single tool calls with all their reasons.", no_args_is_help=True)
EffectArgument = Annotated[str, typer.Argument(metavar="ID", help="The effect's id.")]
_WIDTH = 14


class Settlement(StrEnum):
    """What a person may find out about an effect of unknown outcome."""

    DONE = "done"
    ABSENT = "absent"
    ABANDONED = "abandoned"


@calls.callback()
def _calls() -> None:
    """Keep `call` a group although it has one command so far."""


@app.command("list")
@tells_errors
def list_(
    workflow: Annotated[str | None, typer.Option(help="Only this workflow.")] = None,
    state: Annotated[list[EffectState] | None, typer.Option(help="Only these states.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List effects, newest first."""
    states = [str(one) for one in state or ()]
    with connected() as client:
        body = client.get("effects", workflow=workflow, state=states, limit=limit)
    if as_json:
        show_json(body)
        return
    is_filtered = workflow is not None or bool(states)
    _table(
        rows_of(body, "effects"),
        empty="no effect is like that" if is_filtered else "no tool has been called yet",
    )


@app.command()
@tells_errors
def parked(*, as_json: AsJson = False) -> None:
    """List effects of unknown outcome that only a person may settle."""
    with connected() as client:
        body = client.get("effects", state=["parked"])
    if as_json:
        show_json(body)
        return
    found = rows_of(body, "effects")
    _table(found, empty="nothing is parked")
    if found:
        say("look into the system, then: interlock effect resolve ID done|absent|abandoned")


@app.command()
@calls.command()
@tells_errors
def show(effect_id: EffectArgument, *, as_json: AsJson = False) -> None:
    """Show one call: proposal, decisions with reasons, approvals, evidence, outcome."""
    with connected() as client:
        body = client.get("effects", effect_id)
    if as_json:
        show_json(body)
    else:
        _print_effect(body)


@app.command()
@tells_errors
def resolve(
    effect_id: EffectArgument,
    answer: Annotated[Settlement, typer.Argument(help="What you found out.")],
    *,
    reason: Annotated[str, typer.Option(help="How you know.", prompt=True)],
    external_id: Annotated[
        str | None, typer.Option(help="The record's id in its system, if it was done.")
    ] = None,
) -> None:
    """Settle a parked effect; its run goes on."""
    with connected() as client:
        settled = client.post(
            "effects",
            effect_id,
            "settle",
            body={"answer": answer, "reason": reason, "external_id": external_id},
        )
    say(str(settled["state"]))


def _print_effect(effect: JsonObject) -> None:
    say(f"{effect['tool']} v{effect['tool_version']}", style="bold")
    for name in (
        "state",
        "effect_class",
        "environment",
        "workflow",
        "run_id",
        "step_name",
        "attempt",
        "idem_key",
        "key_text",
        "call_digest",
        "external_id",
        "error_code",
        "error_message",
    ):
        if effect[name] is not None:
            fact(name.replace("_", " "), effect[name], width=_WIDTH)
    seats = [f"{seat['workflow']}/{seat['agent']}" for seat in rows_of(effect, "seats")]
    fact("seats", list[Json](seats), width=_WIDTH)
    fact("arguments", canonical_text(effect["arguments"]), width=_WIDTH)
    fact("cost", money(effect["cost_micro_usd"]), width=_WIDTH)
    for decided in rows_of(effect, "decisions"):
        _print_decision(decided)
    for asked in rows_of(effect, "approvals"):
        answer = f"{asked['state']} by {asked['answered_by'] or asked['group']}"
        fact("approval", f"{when(asked['asked_us'])}  {answer}", width=_WIDTH)
    for seen in rows_of(effect, "evidence"):
        detail = canonical_text(seen["detail"])
        told = f"{when(seen['at_us'])}  {seen['kind']} by {seen['by']} {detail}"
        fact("evidence", told, width=_WIDTH)


def _print_decision(decided: JsonObject) -> None:
    decision = decided["decision"]
    if not isinstance(decision, dict):
        return
    fact("decision", f"{when(decided['at_us'])}  {decision['outcome']}", width=_WIDTH)
    for reason in rows_of(decision, "reasons"):
        say(f"    {reason['policy_id'] or reason['code']}: {reason['message']}")
    say(f"    policy version {decision['policy_version']}", style="dim")


def _table(effects: list[JsonObject], *, empty: str) -> None:
    table(
        ("effect", "tool", "class", "state", "external", "run", "when"),
        [
            (
                effect["effect_id"],
                effect["tool"],
                effect["effect_class"],
                effect["state"],
                effect["external_id"],
                effect["run_id"],
                when(effect["created_us"]),
            )
            for effect in effects
        ],
        empty=empty,
    )
