"""`interlock effect`: the ledger, single calls with their reasons, and parked effects."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from interlock.cli.output import (
    cell,
    connected,
    money,
    out,
    rows_of,
    show_json,
    table,
    tells_errors,
    when,
)
from interlock.domain.canonical import JsonObject, canonical_text

app = typer.Typer(help="The ledger of effects.", no_args_is_help=True)
EffectArgument = Annotated[str, typer.Argument(metavar="ID", help="The effect's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@app.command("list")
@tells_errors
def list_(
    workflow: Annotated[str | None, typer.Option(help="Only this workflow.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only these states.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 100,
    as_json: AsJson = False,
) -> None:
    """List effects, newest first."""
    with connected() as client:
        body = client.get("effects", workflow=workflow, state=state, limit=limit)
    if as_json:
        show_json(body)
        return
    _table(rows_of(body, "effects"), empty="no tool has been called yet")


@app.command()
@tells_errors
def parked(*, as_json: AsJson = False) -> None:
    """List effects of unknown outcome that only a person may settle."""
    with connected() as client:
        body = client.get("effects", state=["parked"])
    if as_json:
        show_json(body)
        return
    _table(rows_of(body, "effects"), empty="nothing is parked")


@app.command()
@tells_errors
def show(effect_id: EffectArgument, *, as_json: AsJson = False) -> None:
    """Show one call: proposal, decisions with reasons, approvals, evidence, outcome."""
    with connected() as client:
        body = client.get(f"effects/{effect_id}")
    if as_json:
        show_json(body)
        return
    out.print(Text(f"{body['tool']} v{body['tool_version']}", style="bold"))
    for name in (
        "state",
        "effect_class",
        "environment",
        "workflow",
        "seats",
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
        if body[name] is not None:
            out.print(Text(f"  {name:<14}", style="dim") + cell(body[name]))
    out.print(Text(f"  arguments      {canonical_text(body['arguments'])}"))
    out.print(Text(f"  cost           {money(body['cost_micro_usd'])}"))
    for decided in rows_of(body, "decisions"):
        _print_decision(decided)
    for seen in rows_of(body, "evidence"):
        detail = canonical_text(seen["detail"])
        out.print(Text(f"  {when(seen['at_us'])} {seen['kind']} by {seen['by']} {detail}"))


@app.command()
@tells_errors
def resolve(
    effect_id: EffectArgument,
    answer: Annotated[str, typer.Argument(help="done, absent or abandoned")],
    *,
    reason: Annotated[str, typer.Option(help="How you know.", prompt=True)],
    external_id: Annotated[str | None, typer.Option(help="The record's id, if done.")] = None,
) -> None:
    """Settle a parked effect; its run goes on."""
    with connected() as client:
        body = client.post(
            f"effects/{effect_id}/settle",
            {"answer": answer, "reason": reason, "external_id": external_id},
        )
    out.print(cell(body["state"]))


def _print_decision(decided: JsonObject) -> None:
    decision = decided["decision"]
    if not isinstance(decision, dict):
        return
    out.print(Text("  decision       ", style="dim") + cell(decision["outcome"]))
    for reason in rows_of(decision, "reasons"):
        out.print(Text(f"    {reason['policy_id'] or reason['code']}: {reason['message']}"))


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
