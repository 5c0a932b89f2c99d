"""Unknown outcomes: take over from a lost owner, send again, probe, or park for a person.

Which of them is the protocol's answer by effect class; nothing here guesses. A probe is a tool
call of its own and takes the same road.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Literal

from interlock.calls import protocol
from interlock.calls.durable import Dispatch, Durable
from interlock.calls.protocol import Verdict
from interlock.calls.record import Reading, write_outcome
from interlock.calls.road import Call, CallResult, CallState, Proposal, Road, view_of
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import Effect, EffectState, Evidence
from interlock.domain.errors import ConflictError, ContractError, ForbiddenError, InputError
from interlock.domain.ids import EffectId, StepName
from interlock.domain.pointer import fill
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.domain.tool import Probe, ToolVersion
from interlock.observe import emit
from interlock.store import effects, spans
from interlock.store.engine import Database, Tx
from interlock.tools.contract import Contract

Ask = Callable[[Proposal], Awaitable[CallResult]]
_MAX_PROBES = 5
_LONGEST_PAUSE_S = 60.0


async def take_over(durable: Durable, call: Call) -> Call:
    """Turn what a lost owner left open into an unknown outcome of this owner."""

    def mark(tx: Tx) -> Effect:
        before = effects.get(tx, call.effect.effect_id)
        after = protocol.step(
            view_of(before, call.known_tool), protocol.Lost(epoch=durable.run.epoch)
        )
        _see(tx, before, "owner.lost", {"epoch": durable.run.epoch})
        effect = replace(before, state=after.state, epoch=after.epoch)
        return effects.move(tx, before, effect)

    return call.at(await durable.transact("call.takeover", mark, tool=call.effect.tool))


async def recover(road: Road, durable: Durable, call: Call, ask: Ask) -> Call | CallResult:
    """Take an ambiguous effect one station further; a call that may be sent again comes back so."""
    now_us = await durable.read(lambda tx: tx.now_us)
    action = protocol.recover(view_of(call.effect, call.known_tool), now_us=now_us)
    if call.effect.error_code == "call.key_reused":
        action = "park"
    if action == "probe":
        return await _probe(road, durable, call, ask)
    if action == "park":
        return await park(durable, call, "nothing but a person can tell whether it was done")
    if action == "give_up":
        return await _give_up(durable, call)
    return call


async def pause(durable: Durable, call: Call) -> None:
    """Wait before the next attempt: doubling from a second, jittered, at least the upstream's hint.

    Counted from the outcome in the row, with jitter from the effect's id, so that every replay
    waits for the same instant; an owner that was lost left no outcome and costs no pause.
    """
    effect = call.effect
    spread = int(effect.effect_id[:8], 16) / 0xFFFF_FFFF + 0.5
    wait_s = min(_LONGEST_PAUSE_S, 2.0 ** max(0, effect.attempt - 1)) * spread
    wait_s = max(call.retry_after_s, wait_s)
    if effect.outcome_us is not None:
        name = StepName(f"{effect.step_name}#pause.{effect.attempt}")
        await durable.sleep(name, effect.outcome_us + round(wait_s * 1_000_000))


async def park(durable: Durable, call: Call, why: str) -> Call:
    """Leave the effect to a person."""

    def write(tx: Tx) -> Effect:
        return _parked(tx, effects.get(tx, call.effect.effect_id), call.known_tool, why)

    return call.at(await durable.transact("call.park", write, tool=call.effect.tool))


async def hear_person(durable: Durable, call: Call) -> Call:
    """Wait until a person has settled the parked effect."""
    name = StepName(f"{call.effect.step_name}#parked.{call.effect.attempt}")
    await durable.wait(name, _topic(call.effect.effect_id), until_us=None)
    return call.at(await durable.read(lambda tx: effects.get(tx, call.effect.effect_id)))


def settle(
    db: Database,
    dispatch: Dispatch,
    effect_id: EffectId,
    *,
    by: Principal,
    answer: Literal["done", "absent", "abandoned"],
    reason: str,
    external_id: str | None = None,
) -> Effect:
    """Record a person's word on a parked effect and wake its run, in one transaction."""
    if by.kind is not PrincipalKind.USER or Role.OPERATOR not in by.roles:
        msg = f"`{by.name}` is not an operator; only people with that role settle effects"
        raise ForbiddenError(msg)

    def write(tx: Tx) -> Effect:
        before = effects.get(tx, effect_id)
        if before.tenant != by.tenant:
            msg = f"`{by.name}` belongs to another tenant"
            raise ForbiddenError(msg)
        if before.state is not EffectState.PARKED:
            msg = f"the effect is `{before.state}`, only a parked one can be settled"
            raise ConflictError(msg)
        state = {
            "done": EffectState.CONFIRMED_DONE,
            "absent": EffectState.CONFIRMED_ABSENT,
            "abandoned": EffectState.ABANDONED,
        }[answer]
        effect = effects.move(
            tx,
            before,
            replace(
                before,
                state=state,
                external_id=external_id or before.external_id,
                outcome_us=tx.now_us,
                error_code=None if answer == "done" else f"effect.{answer}",
                error_message=f"{by.name} settled it as {answer}: {reason}",
            ),
        )
        _see(tx, effect, f"settled.{answer}", {"reason": reason}, by=by.name)
        spans.close(
            tx,
            effect.run_id,
            effect.step_name,
            end_us=tx.now_us,
            status=emit.effect_status(effect.state),
            error_code=effect.error_code,
            attributes=emit.effect_outcome(effect),
        )
        dispatch.signal(
            tx,
            effect.run_id,
            _topic(effect_id),
            {"answer": answer},
            dedupe_key=f"{_topic(effect_id)}/{effect.attempt}",
        )
        return effect

    return db.run("effect.settle", write)


async def _probe(road: Road, durable: Durable, call: Call, ask: Ask) -> Call | CallResult:
    tool = call.known_tool
    probe = tool.effect.probe
    # INVARIANT: the protocol asks for a probe only if the tool has one.
    assert probe is not None
    n = await durable.read(lambda tx: effects.count_evidence(tx, call.effect.effect_id, "probed"))
    if n >= _MAX_PROBES:
        return await park(durable, call, f"{n} probes did not settle it")
    asked = await durable.transact("call.probe", lambda tx: _begin_probe(tx, call, n + 1))
    answer = await ask(_question(call, probe, n + 1))
    is_quiet = protocol.quiet_at_us(view_of(asked, tool)) <= await durable.read(lambda t: t.now_us)
    found = _found(call, probe, answer)
    if len(found) == 1:
        return await _was_done(road, durable, call.at(asked), found[0], n=n + 1)

    def write(tx: Tx) -> Effect:
        event = protocol.Probed(found=len(found), is_quiet=is_quiet and _is_known(answer))
        after = protocol.step(view_of(asked, tool), event)
        _see(tx, asked, "probed", {"found": len(found), "is_quiet": is_quiet})
        spans.put(tx, emit.probe_span(asked, n=n + 1, start_us=tx.now_us, end_us=tx.now_us))
        if after.state is EffectState.PARKED:
            return _parked(tx, asked, tool, f"the probe found {len(found)} effects")
        return effects.move(tx, asked, replace(asked, state=after.state))

    probed = call.at(await durable.transact("call.probe", write, tool=tool.name))
    if probed.effect.state is EffectState.AMBIGUOUS:
        name = StepName(f"{call.effect.step_name}#quiet.{n + 1}")
        await durable.sleep(name, protocol.quiet_at_us(view_of(asked, tool)))
    return probed


def _begin_probe(tx: Tx, call: Call, n: int) -> Effect:
    before = effects.get(tx, call.effect.effect_id)
    after = protocol.step(view_of(before, call.known_tool), protocol.Probe())
    spans.put(tx, emit.probe_span(before, n=n, start_us=tx.now_us))
    return effects.move(tx, before, replace(before, state=after.state))


def _question(call: Call, probe: Probe, n: int) -> Proposal:
    effect = call.effect
    return Proposal(
        step_name=StepName(f"{effect.step_name}#probe.{n}/{probe.tool}"),
        tool=probe.tool,
        version=probe.version,
        arguments=fill(probe.args, _documents(effect)),
        seats=effect.seats,
        parent_span=f"{effect.step_name}#probe.{n}",
    )


def _documents(effect: Effect) -> dict[str, Json]:
    return {
        "in": effect.arguments,
        "effect": {"id": effect.effect_id, "key": effect.idem_key},
    }


def _is_known(answer: CallResult) -> bool:
    return answer.state is CallState.SUCCEEDED


def _found(call: Call, probe: Probe, answer: CallResult) -> list[Json]:
    """Return what the probe found; an unanswered probe found nothing and proves nothing."""
    if not _is_known(answer):
        return []
    try:
        value = fill(probe.found, {"out": answer.output})
        wanted = fill(probe.equals, _documents(call.effect), optional=True)
    except InputError:
        return []
    items: list[Json] = value if isinstance(value, list) else []
    if value is not None and not isinstance(value, list):
        items = [value]
    if not isinstance(wanted, dict):
        return items
    return [
        item
        for item in items
        if not wanted or (isinstance(item, dict) and wanted.items() <= item.items())
    ]


async def _was_done(
    road: Road, durable: Durable, call: Call, found: Json, *, n: int
) -> Call | CallResult:
    tool = call.known_tool
    probe = tool.effect.probe
    documents = {**_documents(call.effect), "found": found}
    try:
        output = found if not probe or probe.result is None else fill(probe.result, documents)
        Contract.of(tool.output_schema).check(output, what="result")
    except (InputError, ContractError) as error:
        return await park(durable, call, f"it was done, but its result is unclear: {error.message}")
    after = protocol.step(view_of(call.effect, tool), protocol.Probed(found=1, is_quiet=True))
    reading = Reading(verdict=Verdict.SUCCEEDED, output=output)

    def write(tx: Tx) -> Json:
        _see(tx, call.effect, "probed", {"found": 1})
        spans.put(
            tx,
            emit.probe_span(call.effect, n=n, start_us=tx.now_us, end_us=tx.now_us, found=1),
        )
        return write_outcome(tx, road, call, after.state, reading).to_json()

    value = await durable.commit(call.effect.step_name, write, kind="call.outcome", tool=tool.name)
    return CallResult.from_journal(value)


async def _give_up(durable: Durable, call: Call) -> Call:
    def write(tx: Tx) -> Effect:
        before = effects.get(tx, call.effect.effect_id)
        after = protocol.step(view_of(before, call.known_tool), protocol.GiveUp())
        effect = effects.move(tx, before, replace(before, state=after.state))
        spans.put(
            tx, emit.tool_span(effect, parent_key=call.proposal.parent_span, end_us=tx.now_us)
        )
        return effect

    return call.at(await durable.transact("call.give_up", write, tool=call.effect.tool))


def _parked(tx: Tx, before: Effect, tool: ToolVersion, why: str) -> Effect:
    after = protocol.step(view_of(before, tool), protocol.Park())
    _see(tx, before, "parked", {"why": why})
    return effects.move(
        tx,
        before,
        replace(before, state=after.state, error_code="effect.parked", error_message=why),
    )


def _see(tx: Tx, effect: Effect, kind: str, detail: JsonObject, *, by: str = "interlock") -> None:
    effects.add_evidence(
        tx,
        Evidence(
            effect_id=effect.effect_id,
            attempt=effect.attempt,
            epoch=effect.epoch,
            kind=kind,
            detail=detail,
            by=by,
            at_us=tx.now_us,
        ),
    )


def _topic(effect_id: EffectId) -> str:
    return f"effect/{effect_id}"
