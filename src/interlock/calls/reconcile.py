"""Unknown outcomes: take over from a lost owner, send again, probe, or park for a person.

Which of them is the protocol's answer by effect class; nothing here guesses. A probe is a tool
call of its own and takes the same road. Where a worker of another host may have been paused for
longer than the quiet time, a run of its own looks a second time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Literal

from interlock.calls import protocol
from interlock.calls.durable import LEASE_S, Dispatch, Durable
from interlock.calls.protocol import Verdict
from interlock.calls.record import (
    Reading,
    check_result,
    close_send,
    mark_undone,
    result_of,
    write_outcome,
)
from interlock.calls.road import Call, CallResult, CallState, Proposal, Road, view_of
from interlock.domain.canonical import Json, JsonObject, digest
from interlock.domain.effect import Effect, EffectState, Evidence
from interlock.domain.errors import ConflictError, ContractError, ForbiddenError, InputError
from interlock.domain.ids import EffectId, StepName
from interlock.domain.pointer import fill
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.domain.run import RECHECK, Run, follow_up
from interlock.domain.tool import EffectClass, Probe, ToolVersion
from interlock.observe import emit
from interlock.store import budgets, effects, ladder, runs, spans
from interlock.store.engine import Database
from interlock.store.tx import Tx

Ask = Callable[[Proposal], Awaitable[CallResult]]
UNKNOWN = frozenset({EffectState.INTENT, EffectState.AMBIGUOUS, EffectState.PROBING})
"""States of a call that was, or may have been, sent and of which nothing more is known."""
DOUBLED = "effect.doubled"
"""Error code of an effect of which a second look found more than its row says."""
MAX_PROBES = 5
LONGEST_PAUSE_S = 60.0
_WAKING_S = 5.0
"""For how long a worker that was paused past its lease may go on before it finds that out."""


async def take_over(durable: Durable, call: Call) -> Call:
    """Turn what a lost owner left open into an unknown outcome of this owner."""

    def mark(tx: Tx) -> Effect:
        before, run = effects.get(tx, call.effect.effect_id), durable.run
        lost = protocol.Lost(epoch=run.epoch, until_us=_may_send_until_us(run, call.tool))
        after = protocol.step(view_of(before, call.tool), lost)
        _see(tx, before, "owner.lost", {"epoch": run.epoch, "was_seen": lost.until_us is None})
        effect = replace(
            before,
            state=after.state,
            epoch=after.epoch,
            send_deadline_us=after.send_deadline_us,
            is_in_doubt=after.is_in_doubt,
        )
        if before.state is EffectState.INTENT:
            end_us = min(tx.now_us, before.send_deadline_us or tx.now_us)
            close_send(tx, effect, end_us=end_us, error_code="owner.lost")
        return effects.move(tx, before, effect)

    return call.at(await durable.transact("call.takeover", mark, tool=call.effect.tool))


def _may_send_until_us(run: Run, tool: ToolVersion | None) -> int | None:
    """Return when a request of a lost owner is over at the latest; None if it was seen to end.

    Its lease was over when the run was taken. Whoever wakes after that finds it out and ends, but
    one request may be on its way by then.
    """
    if run.lost_us is None or tool is None:
        return None
    return run.lost_us + round((_WAKING_S + tool.limits.timeout_s) * 1_000_000)


async def recover(road: Road, durable: Durable, call: Call, ask: Ask) -> Call | CallResult:
    """Take an ambiguous effect one station further; a call that may be sent again comes back so."""
    now_us = await durable.read(lambda tx: tx.now_us)
    action = protocol.recover(view_of(call.effect, call.tool), now_us=now_us)
    if action == "probe":
        return await _probe(road, durable, call, ask)
    if action == "resend":
        return call
    return await _leave(durable, call, "nothing but a person can tell whether it was done")


async def pause(durable: Durable, call: Call) -> None:
    """Wait before the next attempt: doubling from a second, jittered, at least the upstream's hint.

    Counted from the outcome in the row. The end is recorded, since the hint is gone on a replay,
    which has to wait for the same instant. An owner that was lost left no outcome: no pause. Nor is
    there a second one if a probe found in the meantime that the attempt did nothing.
    """
    effect = call.effect
    name = StepName(f"{effect.step_name}#pause.{effect.attempt}")
    if effect.outcome_us is None or durable.recorded(name) is not None:
        return
    spread = int(effect.effect_id[:8], 16) / 0xFFFF_FFFF + 0.5
    wait_s = min(LONGEST_PAUSE_S, 2.0 ** (effect.attempt - 1)) * spread
    until_us = effect.outcome_us + round(max(call.retry_after_s, wait_s) * 1_000_000)
    recorded = await durable.commit(
        StepName(f"{name}.until"), lambda _tx: until_us, kind="call.pause"
    )
    await durable.sleep(name, int(str(recorded)))


def leave(tx: Tx, effect: Effect, why: str) -> Effect:
    """Leave an unknown outcome to a person; a read, which changed nothing, has just failed.

    `effect` may carry changes that are written with it; state, epoch and attempt are the row's.
    """
    view = view_of(effect, None)
    if view.state is EffectState.INTENT:
        lost = protocol.Answered(epoch=view.epoch, attempt=view.attempt, verdict=Verdict.UNKNOWN)
        view = protocol.step(view, lost)
    if effect.effect_class is EffectClass.READ:
        after = protocol.step(view, protocol.GiveUp())
        # It changed nothing, but may have been paid for.
        budgets.settle(tx, effect.effect_id)
        code, message = effect.error_code or "call.unanswered", effect.error_message or why
    else:
        after = protocol.step(view, protocol.Park())
        code, message = "effect.parked", why
        _see(tx, effect, "parked", {"why": why})
    left = effects.move(
        tx,
        effect,
        replace(
            effect,
            state=after.state,
            is_in_doubt=after.is_in_doubt,
            error_code=code,
            error_message=message,
        ),
    )
    spans.close(
        tx,
        left.run_id,
        left.step_name,
        end_us=tx.now_us,
        status=emit.effect_status(left.state),
        error_code=left.error_code,
        attributes=emit.effect_outcome(left),
    )
    return left


async def _leave(durable: Durable, call: Call, why: str) -> Call:
    def write(tx: Tx) -> Effect:
        return leave(tx, effects.get(tx, call.effect.effect_id), why)

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
        # The run first, as its own code locks: then neither waits for the other.
        runs.lock_any(tx, effects.get(tx, effect_id).run_id)
        before = effects.get(tx, effect_id)
        if before.tenant != by.tenant:
            msg = f"`{by.name}` belongs to another tenant"
            raise ForbiddenError(msg)
        if before.state is not EffectState.PARKED:
            msg = f"the effect is `{before.state}`, only a parked one can be settled"
            raise ConflictError(msg)
        after = protocol.step(view_of(before, None), protocol.Settled(answer=answer))
        effect = effects.move(
            tx,
            before,
            replace(
                before,
                state=after.state,
                is_in_doubt=after.is_in_doubt,
                external_id=external_id or before.external_id,
                outcome_us=tx.now_us,
                error_code=None if answer == "done" else f"effect.{answer}",
                error_message=f"{by.name} settled it as {answer}: {reason}",
            ),
        )
        _see(tx, effect, f"settled.{answer}", {"reason": reason}, by=by.name)
        if answer == "done":
            mark_undone(tx, effect)
        if before.error_code != DOUBLED:
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
    n = 1 + await durable.read(
        lambda tx: effects.count_evidence(tx, call.effect.effect_id, "probed")
    )
    if n > MAX_PROBES:
        return await _leave(durable, call, f"{n - 1} probes did not settle it")
    try:
        question = question_of(call.effect, probe, n, parent_span=_probe_key(call.effect, n))
    except InputError as error:
        return await _leave(durable, call, f"its probe cannot be worded: {error.message}")
    asked = await durable.transact("call.probe", lambda tx: _begin_probe(tx, call, n))
    answer = await ask(question)
    found = found_by(call.effect, probe, answer)
    if found is not None and len(found) == 1:
        return await _was_done(road, durable, call.at(asked), found[0], n=n)
    quiet_us = protocol.quiet_at_us(view_of(asked, tool))

    def write(tx: Tx) -> Effect:
        # The answer counts for the moment of the question: it may be a replay of an old one.
        is_quiet = quiet_us <= effects.get(tx, answer.effect_id).created_us
        count = None if found is None else len(found)
        _see(tx, asked, "probed", {"found": count, "is_quiet": is_quiet})
        moved = _write_probed(tx, asked, tool, found, is_quiet=is_quiet)
        if moved.state is EffectState.FAILED_DEFINITE:
            _start_recheck(tx, durable, moved, quiet_us=quiet_us)
        now_us = tx.now_us
        spans.put(tx, emit.probe_span(moved, n=n, start_us=now_us, end_us=now_us, found=count))
        return moved

    probed = call.at(await durable.transact("call.probe", write, tool=tool.name))
    if probed.effect.state is EffectState.AMBIGUOUS:
        await durable.sleep(StepName(f"{call.effect.step_name}#quiet.{n}"), quiet_us)
    return probed


def _write_probed(
    tx: Tx, asked: Effect, tool: ToolVersion, found: list[Json] | None, *, is_quiet: bool
) -> Effect:
    """Write what a probe says that did not find exactly one effect; None says nothing."""
    count = 0 if found is None else len(found)
    event = protocol.Probed(found=count, is_quiet=is_quiet and found is not None)
    after = protocol.step(view_of(asked, tool), event)
    if after.state is EffectState.PARKED:
        ladder.violated(tx, asked.workflow, asked.environment, f"it did `{asked.tool}` twice")
        return leave(tx, asked, f"the probe found {count} effects")
    moved = replace(asked, state=after.state, is_in_doubt=after.is_in_doubt)
    if after.state is EffectState.FAILED_DEFINITE:
        guard = tool.effect.guard
        if guard is not None and guard.kind == "version":
            # A change is seen only until the next one: absence is no proof as it is for a creation.
            return leave(tx, asked, "the record holds other values, perhaps written after ours")
        message = "a probe found that nothing was done"
        moved = replace(moved, error_code="call.not_done", error_message=message)
    return effects.move(tx, asked, moved)


def _begin_probe(tx: Tx, call: Call, n: int) -> Effect:
    before = effects.get(tx, call.effect.effect_id)
    after = protocol.step(view_of(before, call.known_tool), protocol.Probe())
    spans.put(tx, emit.probe_span(before, n=n, start_us=tx.now_us))
    return effects.move(tx, before, replace(before, state=after.state))


def _probe_key(effect: Effect, n: int) -> str:
    return f"{effect.step_name}#probe.{n}"


def question_of(effect: Effect, probe: Probe, n: int, *, parent_span: str) -> Proposal:
    """Return the call that looks for an effect for the nth time; raises `InputError`."""
    return Proposal(
        step_name=StepName(f"{_probe_key(effect, n)}/{probe.tool}"),
        tool=probe.tool,
        version=probe.version,
        settles=effect.effect_id,
        arguments=fill(probe.args, _documents(effect)),
        seats=effect.seats,
        parent_span=parent_span,
    )


def _documents(effect: Effect) -> dict[str, Json]:
    return {
        "in": effect.arguments,
        "effect": {"id": effect.effect_id, "key": effect.idem_key},
    }


def found_by(effect: Effect, probe: Probe, answer: CallResult) -> list[Json] | None:
    """Return what the probe found; None if it proves nothing.

    That is without an answer, or if nothing is left of what would tell our write from others.
    """
    wanted = fill(probe.equals, _documents(effect), optional=True)
    # INVARIANT: `fill` keeps the shape of an object.
    assert isinstance(wanted, dict)
    if answer.state is not CallState.SUCCEEDED or (probe.equals and not wanted):
        return None
    try:
        value = fill(probe.found, {"out": answer.output})
    except InputError:
        return []
    items: list[Json] = value if isinstance(value, list) else []
    if value is not None and not isinstance(value, list):
        items = [value]
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
        check_result(output, tool)
    except (InputError, ContractError) as error:
        where = error.pointer if isinstance(error, ContractError) else error.message
        return await _leave(durable, call, f"it was done, but its result is unclear: {where}")
    after = protocol.step(view_of(call.effect, tool), protocol.Probed(found=1, is_quiet=True))
    reading = Reading(verdict=Verdict.SUCCEEDED, output=output)

    def write(tx: Tx) -> Json:
        _see(tx, call.effect, "probed", {"found": 1})
        seen, now_us = replace(call.effect, state=after.state), tx.now_us
        spans.put(tx, emit.probe_span(seen, n=n, start_us=now_us, end_us=now_us, found=1))
        return result_of(write_outcome(tx, road, call, after, reading)).to_json()

    value = await durable.commit(
        call.effect.step_name,
        write,
        kind="call.outcome",
        tool=tool.name,
        input_digest=call.proposal.input_digest,
    )
    return CallResult.from_journal(value)


# --- the second look: `runtime.recheck` is the run


def _start_recheck(tx: Tx, durable: Durable, effect: Effect, *, quiet_us: int) -> None:
    """Let a run of its own look again, if the lost owner was not seen to end: it may only be slow.

    Twice the quiet time after the owner's last sign of life, when what it sent shows as well.
    """
    run = durable.run
    if run.lost_us is None or (effect.first_sent_us or 0) > run.lost_us:
        return
    at_us = 2 * quiet_us - (run.lost_us - round(LEASE_S * 1_000_000))
    request = follow_up(
        run,
        kind=RECHECK,
        # One for each loss: it waits for the attempts that are yet to come.
        key=f"{effect.effect_id}/{run.lost_us}",
        value={"effect_id": effect.effect_id, "at_us": at_us},
        user=run.request.user,
    )
    _, is_new = durable.dispatch.start(tx, request, body_digest=digest(request.trigger.key))
    if is_new:
        _see(tx, effect, "recheck.due", {"at_us": at_us})


def note_recheck(
    tx: Tx, effect: Effect, tool: ToolVersion | None, *, found: int, asked: EffectId
) -> Effect:
    """Write what a second look found, by the call `asked`; park what is there too often.

    The row of the effect's run is locked.
    """
    view = view_of(effect, tool)
    _see(tx, effect, "rechecked", {"found": found, "asked": asked})
    if not protocol.is_surplus(view, found=found):
        return effect
    after = protocol.step(view, protocol.Rechecked(found=found))
    why = f"a second look found {found} where the ledger has `{effect.state}`"
    _see(tx, effect, "parked", {"why": why})
    parked = replace(effect, state=after.state, error_code=DOUBLED, error_message=why)
    ladder.violated(tx, effect.workflow, effect.environment, f"it did `{effect.tool}` twice")
    return effects.move(tx, effect, parked)


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
