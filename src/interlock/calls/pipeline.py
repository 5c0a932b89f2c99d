"""The road of a tool call on one screen: propose, validate, approve, execute, record.

Every call enters here, whoever proposes it: an agent, a workflow step, an undo, a probe. The
effect's state says which station is next, so a replay after a crash goes on where the row stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import structlog

from interlock.calls import approve, execute, protocol, reconcile
from interlock.calls.durable import Durable
from interlock.calls.record import record, result_of
from interlock.calls.road import Call, CallResult, Proposal, Road, view_of
from interlock.domain import switch
from interlock.domain.effect import EffectState
from interlock.domain.run import Run, RunState
from interlock.store import effects
from interlock.store.tx import Tx

_log = structlog.get_logger(__name__)


WaitsFor = Literal["approval", "person", "rate", "server", "switch"]
"""People who approve, a person who settles what is unknown, a rate, a server that fails, a kill
switch that is to be lifted."""
Told = Callable[[Call], None]
"""Hears where a call stands, before it goes to each station."""


def _nobody(_call: Call) -> None:
    """Hear nothing."""


async def call_tool(
    road: Road, durable: Durable, proposal: Proposal, *, told: Told = _nobody
) -> CallResult:
    """Take one proposed call down the road and return how it ended.

    Guarantees by effect class: docs/guarantees.md. A deny, a rejection or a failed call is a
    result. The same step of the same run always gets the same result.
    """
    entry = durable.recorded(proposal.step_name, input_digest=proposal.input_digest)
    if entry is not None:
        return CallResult.from_journal(entry.value)
    at: Call | CallResult = await execute.begin(road, durable, proposal)
    while isinstance(at, Call):
        told(at)
        at = await _next_station(road, durable, at)
    return at


def waits_for(call: Call) -> WaitsFor | None:
    """Return what a call waits for at its next station; None if it goes on by itself."""
    if call.not_before_us is not None:
        if call.waits_for is None:
            return "rate"
        return "switch" if call.waits_for.startswith(switch.TOPIC) else "server"
    match call.effect.state:
        case EffectState.PROPOSED if call.is_stored and call.refusal is None:
            return "approval"
        case EffectState.PARKED:
            return "person"
        case _:
            return None


def end_calls(tx: Tx, run: Run) -> None:
    """End what the calls of an ended run left open, in the transaction that ends it.

    Nobody can approve what will not be sent any more, and an unknown outcome is left to a person.
    """
    code = "run.cancelled" if run.state is RunState.CANCELLED else "run.ended"
    for effect in effects.list_unended(tx, run.run_id):
        if effect.state in approve.WAITING:
            approve.withdraw(tx, effect, code=code, message=f"the run is `{run.state}`")
        elif effect.state in reconcile.UNKNOWN:
            reconcile.leave(tx, effect, f"its run is `{run.state}` and can no longer find out")


async def _next_station(road: Road, durable: Durable, call: Call) -> Call | CallResult:
    if call.not_before_us is not None:
        return await _intend(road, durable, await execute.wait_for_turn(durable, call))
    match call.effect.state:
        case EffectState.PROPOSED if call.is_stored and call.refusal is None:
            heard = await approve.hear(durable, call)
            is_refused = heard.effect.state is not EffectState.PROPOSED
            return heard if is_refused else await _intend(road, durable, heard)
        case EffectState.PROPOSED | EffectState.AUTHORIZED:
            return await _intend(road, durable, call)
        case EffectState.INTENT if call.sent_at_s and call.effect.epoch == durable.run.epoch:
            # A wait of a parallel branch must not end the segment between send and record.
            with durable.in_flight():
                return await _send(road, durable, call)
        case EffectState.INTENT | EffectState.PROBING:
            return await reconcile.take_over(durable, call)
        case EffectState.AMBIGUOUS:
            return await _recover(road, durable, call)
        case EffectState.FAILED_DEFINITE if protocol.may_retry(view_of(call.effect, call.tool)):
            await reconcile.pause(durable, call)
            return await _intend(road, durable, call)
        case EffectState.PARKED:
            return await reconcile.hear_person(durable, call)
        case _:
            return await _end(durable, call)


async def _intend(road: Road, durable: Durable, call: Call) -> Call:
    return await execute.intend(road, durable, await execute.prepare(road, durable, call))


async def _send(road: Road, durable: Durable, call: Call) -> Call | CallResult:
    """Send and record; how the call went may open or close the breaker of its server."""
    reply = await road.sender.send(call)
    recorded = await record(road, durable, call, reply)
    server = call.known_binding.server
    change = road.breakers.heard(server, call.effect.effect_id, reply)
    if change is not None:
        changed = await durable.transact("breaker.change", change, tool=call.effect.tool)
        road.breakers.look_again()
        if changed is not None:
            _log.warning(f"breaker.{changed}", server=server.name, effect_id=call.effect.effect_id)
    return recorded


async def _recover(road: Road, durable: Durable, call: Call) -> Call | CallResult:
    async def ask(question: Proposal) -> CallResult:
        return await call_tool(road, durable, question)

    recovered = await reconcile.recover(road, durable, call, ask)
    if isinstance(recovered, Call) and recovered is call:
        await reconcile.pause(durable, call)
        return await _intend(road, durable, call)
    return recovered


async def _end(durable: Durable, call: Call) -> CallResult:
    """Put the end of a call that was not sent, or that a person settled, into the journal."""
    value = await durable.commit(
        call.effect.step_name,
        lambda _tx: result_of(call.effect).to_json(),
        kind="call.end",
        tool=call.effect.tool,
        input_digest=call.proposal.input_digest,
    )
    return CallResult.from_journal(value)
