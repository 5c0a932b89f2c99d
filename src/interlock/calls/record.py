"""Station 5, record: read what a reply means from the tool's contract, and commit the outcome.

One transaction: outcome, touches, labels, spans and the journal row that is the step's checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from interlock.calls import protocol
from interlock.calls.durable import Durable
from interlock.calls.protocol import EffectView, Verdict
from interlock.calls.road import (
    KEY_REUSED,
    NOT_SENT,
    Call,
    CallResult,
    CallState,
    Road,
    labels_of,
    view_of,
)
from interlock.domain import canonical
from interlock.domain.canonical import Json
from interlock.domain.effect import Effect, EffectState, Evidence, Reply, Transport
from interlock.domain.errors import ContractError, FencedError, JsonError
from interlock.domain.tool import EffectClass, Guard, ToolVersion
from interlock.observe import bodies, emit, lineage
from interlock.store import effects, runs, spans, touches
from interlock.store.tx import Tx
from interlock.tools.apart import run_apart
from interlock.tools.contract import Contract

_MCP_NO_EFFECT = frozenset({-32601, -32602})
_WAIT_STATUSES = frozenset({429, 502, 503, 504})
_BLAMING = frozenset(range(400, 500)) - {401, 403, 408, 425, 429}
_HTTP_OK = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a reply means: the verdict, the output if it fits the contract, and why if not.

    `is_said` if `message` may hold words of the outside: an agent that reads them has read data.
    `is_retryable` says whether an attempt that did nothing may be worth another.
    """

    verdict: Verdict
    output: Json = None
    code: str | None = None
    message: str | None = None
    is_said: bool = False
    is_retryable: bool = False


def classify(reply: Reply, tool: ToolVersion, *, is_in_doubt: bool) -> Reading:
    """Read a reply by the tool's contract.

    `nothing_done` only if the contract says so, or of a read that was answered with blame; silence,
    5xx, other 4xx, an error result or an answer that breaks the contract are `unknown`: perhaps it
    was done. `is_in_doubt` if an earlier attempt of the row may have been done: a guard may then
    have refused its echo.
    """
    if reply.transport is Transport.NOT_SENT:
        message = reply.problem or "the call was not sent"
        return Reading(
            verdict=Verdict.NOT_SENT,
            code=NOT_SENT,
            message=message,
            is_retryable=not reply.is_final,
        )
    if reply.transport is Transport.UNKNOWN:
        return _unknown("call.unanswered", reply.problem or "no answer came")
    spec, status = tool.effect, reply.status or 0
    if spec.guard is not None and status in spec.guard.refused:
        return _guard_refused(spec.guard, is_in_doubt=is_in_doubt)
    if status in spec.key_reused:
        return _answered(Verdict.KEY_REUSED, KEY_REUSED, reply)
    if status in spec.in_progress:
        return _answered(Verdict.IN_PROGRESS, "call.in_progress", reply)
    if ("error" if reply.is_error else status) in spec.no_effect or status in _MCP_NO_EFFECT:
        refused = _answered(Verdict.NOTHING_DONE, "call.refused", reply)
        return replace(refused, is_retryable=status in _WAIT_STATUSES)
    if status not in _HTTP_OK or reply.is_error:
        # A read changed nothing, and an answer that blames the request would come again.
        is_read = spec.effect_class is EffectClass.READ
        is_over = is_read and (reply.is_error or status in _BLAMING)
        verdict = Verdict.NOTHING_DONE if is_over else Verdict.UNKNOWN
        return _answered(verdict, "call.failed", reply)
    if reply.problem is not None:
        return _answered(Verdict.UNKNOWN, "call.unreadable", reply)
    return _checked(reply, tool)


def _guard_refused(guard: Guard, *, is_in_doubt: bool) -> Reading:
    message = "the record changed since its version was read; read it again"
    if guard.kind == "version" and not is_in_doubt:
        return Reading(verdict=Verdict.CONFLICT, code="call.conflict", message=message)
    return Reading(
        verdict=Verdict.GUARD_REFUSED,
        code="call.guard_refused",
        message="the guard refused the request, so an earlier one may have been done",
    )


def _checked(reply: Reply, tool: ToolVersion) -> Reading:
    try:
        check_result(reply.body, tool)
    except JsonError as error:
        return _unknown("contract.result", f"the result cannot be kept: {error.message}")
    except ContractError as error:
        # Withheld: the agent sees neither the result nor what in it was wrong, only the pointer,
        # in which names of members may be the outside's.
        message = f"the result breaks its contract at `{error.pointer}`"
        return replace(_unknown("contract.result", message), is_said=True)
    return Reading(verdict=Verdict.SUCCEEDED, output=reply.body)


def check_result(value: Json, tool: ToolVersion) -> None:
    """Raise `JsonError` for a result that cannot be kept, `ContractError` for one that is broken.

    Before the transaction that would keep it: there it could only be lost.
    """
    canonical.check_result(value)
    Contract.of(tool.output_schema).check(value, what="result")


def _unknown(code: str, message: str) -> Reading:
    return Reading(verdict=Verdict.UNKNOWN, code=code, message=message)


def _answered(verdict: Verdict, code: str, reply: Reply) -> Reading:
    """Return a reading with what the outside said of it, or what its answer looked like."""
    ours = "the tool answered with an error" if reply.is_error else f"it answered {reply.status}"
    message, is_said = reply.problem or ours, bool(reply.problem)
    return Reading(verdict=verdict, code=code, message=message, is_said=is_said)


async def record(road: Road, durable: Durable, call: Call, reply: Reply) -> Call | CallResult:
    """Commit what was seen; return the result if the call has ended, else the call as it stands.

    If another worker owns the run by now, the answer is kept as evidence and changes nothing.
    """
    tool, before = call.known_tool, call.effect
    reading = classify(reply, tool, is_in_doubt=before.is_in_doubt)
    road.db.points.reach("reply.read", tool=tool.name)
    after = protocol.step(
        view_of(before, tool),
        protocol.Answered(epoch=before.epoch, attempt=before.attempt, verdict=reading.verdict),
    )
    can_retry = protocol.may_retry(after) and reading.is_retryable
    is_over = after.state is EffectState.SUCCEEDED or (
        after.state is EffectState.FAILED_DEFINITE and not can_retry
    )
    try:
        if is_over:
            value = await durable.commit(
                before.step_name,
                lambda tx: result_of(write_outcome(tx, road, call, after, reading)).to_json(),
                kind="call.outcome",
                tool=tool.name,
                input_digest=call.proposal.input_digest,
            )
            return CallResult.from_journal(value)
        effect = await durable.transact(
            "call.outcome",
            lambda tx: write_outcome(tx, road, call, after, reading),
            tool=tool.name,
        )
    except FencedError:
        # Not by way of `durable`, which refuses a stale owner; evidence may come from anybody.
        await run_apart(lambda: road.db.run("call.late", lambda tx: _see_late(tx, before, reading)))
        raise
    return replace(call.at(effect), retry_after_s=reply.retry_after_s or 0.0)


def write_outcome(tx: Tx, road: Road, call: Call, after: EffectView, reading: Reading) -> Effect:
    """Write everything that a reading means for a row, in the caller's transaction."""
    tool, before, state = call.known_tool, call.effect, after.state
    did_succeed = state is EffectState.SUCCEEDED
    guard = before.guard
    if after.is_guard_refused:
        guard = {**(guard or {}), "is_refused": True}
    touched = (
        lineage.touches_of(before, tool, output=reading.output, at_us=tx.now_us)
        if did_succeed
        else ()
    )
    created = [t.external_id for t in touched if t.mode == "create"]
    effect = effects.move(
        tx,
        before,
        replace(
            before,
            state=state,
            guard=guard,
            is_in_doubt=after.is_in_doubt,
            outcome_us=tx.now_us,
            result=reading.output if did_succeed else None,
            external_id=created[0] if created else before.external_id,
            error_code=None if did_succeed else reading.code,
            error_message=None if did_succeed else reading.message,
            cost_micro_usd=before.cost_micro_usd + (tool.price_micro_usd if did_succeed else 0),
        ),
    )
    effects.add_evidence(tx, _evidence(tx, effect, reading, kind="reply"))
    for touch in touched:
        touches.put(tx, touch)
    if did_succeed or reading.is_said:
        runs.raise_labels(tx, effect.run_id, labels_of(tool))
    if did_succeed:
        bodies.write_result(tx, effect, tool, key=road.key_secret)
        mark_undone(tx, effect)
    _close_spans(tx, call, effect)
    return effect


def result_of(effect: Effect) -> CallResult:
    """Return how a call ended, from its row."""
    states = {
        EffectState.SUCCEEDED: CallState.SUCCEEDED,
        EffectState.COMPENSATED: CallState.SUCCEEDED,
        EffectState.CONFIRMED_DONE: CallState.SUCCEEDED,
        EffectState.DRAFTED: CallState.DRAFTED,
        EffectState.DENIED: CallState.DENIED,
    }
    state = states.get(effect.state, CallState.FAILED)
    if state is CallState.DENIED and (effect.error_code or "").startswith("approval."):
        state = CallState.REJECTED
    return CallResult(
        state=state,
        effect_id=effect.effect_id,
        output=effect.result,
        code=effect.error_code,
        message=effect.error_message,
    )


def mark_undone(tx: Tx, effect: Effect) -> None:
    """Mark what an effect that was done has undone, if it is a compensation."""
    if effect.compensates is None:
        return
    original = effects.get(tx, effect.compensates)
    if original.state is EffectState.COMPENSATED:
        return
    after = view_of(original, None)
    # One of which a second look found more meanwhile stays with the person who looks into it.
    if original.state is not EffectState.PARKED:
        after = protocol.step(after, protocol.Undone())
    effects.move(
        tx, original, replace(original, state=after.state, compensated_by=effect.effect_id)
    )


def _see_late(tx: Tx, effect: Effect, reading: Reading) -> None:
    effects.add_evidence(tx, _evidence(tx, effect, reading, kind="late"))


def _evidence(tx: Tx, effect: Effect, reading: Reading, *, kind: str) -> Evidence:
    return Evidence(
        effect_id=effect.effect_id,
        attempt=effect.attempt,
        epoch=effect.epoch,
        kind=f"{kind}.{reading.verdict}",
        detail={"code": reading.code, "message": reading.message},
        at_us=tx.now_us,
    )


def close_send(tx: Tx, effect: Effect, *, end_us: int, error_code: str | None) -> None:
    """Close the span of the effect's last attempt as the row stands now."""
    spans.close(
        tx,
        effect.run_id,
        emit.send_key(effect),
        end_us=end_us,
        status=emit.effect_status(effect.state),
        error_code=error_code,
        attributes=emit.effect_outcome(effect),
    )


def _close_spans(tx: Tx, call: Call, effect: Effect) -> None:
    end_us = None if effect.state is EffectState.AMBIGUOUS else tx.now_us
    found = [emit.tool_span(effect, parent_key=call.proposal.parent_span, end_us=end_us)]
    if call.effect.state is EffectState.INTENT:
        # What a probe found says nothing about how the last attempt was answered.
        sent = emit.send_span(effect, call.known_binding, start_us=effect.intent_us or tx.now_us)
        status, code = emit.effect_status(effect.state), effect.error_code
        found.insert(0, replace(sent, end_us=tx.now_us, status=status, error_code=code))
    spans.put(tx, *found)
