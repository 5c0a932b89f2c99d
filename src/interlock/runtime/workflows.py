"""Walks a run through its workflow: steps in order, the fallback when one fails, the end state."""

from __future__ import annotations

from dataclasses import replace

from interlock.calls.compensate import Undo, compensate
from interlock.calls.durable import Durable
from interlock.calls.pipeline import end_calls
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import EffectState
from interlock.domain.errors import InputError, StepFailedError
from interlock.domain.ids import EffectId, RunId, StepName
from interlock.domain.pointer import fill
from interlock.domain.principal import Seat
from interlock.domain.record import from_json, object_to_json, to_json
from interlock.domain.run import RECHECK, SESSION, UNDO, Run, RunOutcome, RunState
from interlock.domain.trace import SpanStatus
from interlock.domain.workflow import (
    WORKFLOW_AGENT,
    FailureMode,
    Step,
    failed_name,
)
from interlock.observe import emit, semconv
from interlock.runtime.limits import enter_gates
from interlock.runtime.outside.desk import Desks
from interlock.runtime.outside.session import run_session
from interlock.runtime.recheck import recheck
from interlock.runtime.steps import Services, Walk, close_failed, run_step
from interlock.store import effects, registry, runs, spans
from interlock.store.tx import Tx

_BEGIN = StepName("#begin")
_STANDING = frozenset(
    {EffectState.SUCCEEDED, EffectState.CONFIRMED_DONE, EffectState.AMBIGUOUS, EffectState.PARKED}
)
_NO_MODE = FailureMode(code="*", then="stop")


async def run_segment(
    services: Services, durable: Durable, *, desks: Desks | None = None
) -> RunOutcome:
    """Walk a run from its start to its end; what is recorded is answered from the journal.

    The run is bound to its release and workflow version. A child run of a hand-off only runs its
    agent, an undo only undoes, a recheck only looks, a session only makes the calls of its agent.
    Control errors (fenced, cancelled, store away) come out; every failure of a step leads to the
    failure mode that the workflow declares for its code.

    `desks` is where calls of outside agents arrive; without them a session finishes what is open.
    """
    request = durable.run.request
    release = services.road.live.known(request.release)
    if release is None:
        release = await durable.read(lambda tx: registry.get_release(tx, request.release))
    spec = release.workflows.get(request.workflow)
    if spec is None:
        return _failure("workflow.unknown", f"release {release.number} has no such workflow")
    await enter_gates(durable, spec)
    level = release.level(spec.name, request.environment)
    durable.note(_BEGIN, lambda tx: _open(tx, durable, level), kind="run.begin")
    walk = Walk(services=services, durable=durable, release=release, spec=spec)
    if request.trigger.kind == UNDO:
        return await _walk_undo(walk)
    if request.trigger.kind == RECHECK:
        return await _walk_recheck(walk)
    if request.trigger.kind == SESSION:
        return await run_session(walk, desks or Desks())
    return await (_walk_steps(walk) if request.agent is None else _walk_agent(walk))


def close_trace(tx: Tx, run: Run, outcome: RunOutcome) -> None:
    """Close the calls and spans still open when a run ends, in the transaction that ends it.

    The engine calls it for every run, so also for one that was cancelled or never began.
    """
    end_calls(tx, run)
    is_failed = outcome.state is RunState.FAILED
    opened = spans.list_open(tx, run.run_id)
    if all(span.key != emit.ROOT_KEY for span in opened):
        # It ended before it began.
        spans.put(tx, emit.workflow_span(run))
    for span in opened:
        is_root = span.key == emit.ROOT_KEY
        ended = {semconv.END_STATE: run.end_state} if is_root and run.end_state else {}
        closed = replace(
            span,
            end_us=tx.now_us,
            status=SpanStatus.ERROR if is_failed and is_root else span.status,
            error_code=outcome.error_code if is_root else span.error_code,
            attributes={**span.attributes, **ended},
        )
        spans.put(tx, closed)


async def _walk_agent(walk: Walk) -> RunOutcome:
    agent = walk.run.request.agent
    # INVARIANT: `run_segment` comes here only for the child run of a hand-off.
    assert agent is not None
    step = Step(name=agent, agent=agent)
    try:
        return RunOutcome(state=RunState.SUCCEEDED, output=await run_step(walk, step))
    except StepFailedError as error:
        code, message = error.error_code, error.message
    await walk.durable.transact("step.failed", lambda tx: close_failed(tx, walk, step, code))
    return _failure(code, message)


async def _walk_undo(walk: Walk) -> RunOutcome:
    wanted = walk.run.request.input
    # INVARIANT: an undo is started with the id of the run that it undoes.
    assert isinstance(wanted, dict)
    undone = await _compensate(walk, RunId(str(wanted["run_id"])))
    left = [undo for undo in undone if not undo.is_undone]
    output: Json = {"undo": [to_json(undo) for undo in undone]}
    if left:
        return _failure("undo.incomplete", f"{len(left)} effects are not undone", output=output)
    return RunOutcome(state=RunState.SUCCEEDED, output=output, end_state="undone")


async def _walk_recheck(walk: Walk) -> RunOutcome:
    wanted = walk.run.request.input
    # INVARIANT: a recheck is started with the effect that it looks for, and when.
    assert isinstance(wanted, dict)
    at_us = wanted["at_us"]
    assert isinstance(at_us, int)
    effect_id = EffectId(str(wanted["effect_id"]))
    return await recheck(walk.services.road, walk.durable, effect_id, at_us=at_us)


async def _walk_steps(walk: Walk) -> RunOutcome:
    on_failure_only = {mode.target for mode in walk.spec.failure_modes}
    for step in walk.spec.steps:
        if step.name in on_failure_only:
            continue
        failure = walk.durable.recorded(failed_name(step.name))
        if failure is None:
            try:
                walk.outputs[step.name] = await run_step(walk, step)
                continue
            except StepFailedError as error:
                code, message = error.error_code, error.message
        else:
            code, message = "", ""
        return await _fall_back(walk, step, code, message)
    return RunOutcome(
        state=RunState.SUCCEEDED, output=dict(walk.outputs), end_state=_end_state(walk)
    )


def _end_state(walk: Walk) -> str | None:
    """Return the declared end state that was reached; None if what it names is not there."""
    try:
        reached = fill(walk.spec.success.end_state, walk.documents({}))
    except InputError:
        return None
    return reached if isinstance(reached, str) else None


async def _fall_back(walk: Walk, step: Step, code: str, message: str) -> RunOutcome:
    """Record which failure mode takes over, then do what it says; a replay reads the record."""
    recorded = await walk.durable.commit(
        failed_name(step.name), lambda tx: _fail(tx, walk, step, code, message), kind="step.failed"
    )
    # INVARIANT: only `_fail` writes what is recorded under this name.
    assert isinstance(recorded, dict)
    mode = from_json(FailureMode, recorded["mode"])
    code, why = str(recorded["code"]), f"step `{step.name}` failed: {recorded['message']}"
    if mode.then == "step" and mode.target is not None:
        return await _run_target(walk, mode, recorded, why)
    if mode.then == "end":
        return _ended(walk, mode)
    if mode.then == "compensate":
        left = await _undo(walk)
        return _failure(code, why, output={"undo": left})
    standing = await walk.durable.read(lambda tx: _standing(tx, walk))
    return _failure(code, why, output={"effects": standing})


def _fail(tx: Tx, walk: Walk, step: Step, code: str, message: str) -> Json:
    modes = (*walk.spec.failure_modes, _NO_MODE)
    mode = next(mode for mode in modes if mode.code == "*" or code.startswith(mode.code))
    close_failed(tx, walk, step, code)
    spans.put(tx, emit.fallback_span(walk.run.run_id, step.name, mode, code=code, at_us=tx.now_us))
    return {"step": step.name, "code": code, "message": message, "mode": object_to_json(mode)}


async def _run_target(walk: Walk, mode: FailureMode, failure: JsonObject, why: str) -> RunOutcome:
    # INVARIANT: `_fall_back` comes here only for a mode with a target.
    assert mode.target is not None
    step = walk.spec.step(mode.target)
    try:
        walk.outputs[step.name] = await run_step(replace(walk, failure=failure), step)
    except StepFailedError as error:
        code, message = error.error_code, error.message
    else:
        return _ended(walk, mode)
    await walk.durable.transact("step.failed", lambda tx: close_failed(tx, walk, step, code))
    return _failure(code, f"{why}; its fallback `{step.name}` failed too: {message}")


async def _undo(walk: Walk) -> Json:
    run = walk.run
    await walk.durable.transact(
        "run.compensate", lambda tx: runs.begin_compensating(tx, run.run_id, epoch=run.epoch)
    )
    return [to_json(undo) for undo in await _compensate(walk, run.run_id)]


async def _compensate(walk: Walk, run_id: RunId) -> tuple[Undo, ...]:
    seat = Seat(workflow=walk.run.request.workflow, agent=WORKFLOW_AGENT)
    return await compensate(walk.services.road, walk.durable, run_id, seat=seat)


def _standing(tx: Tx, walk: Walk) -> Json:
    """Return the writes of the run's tree that stand, for people to look at."""
    root_id = walk.run.request.root_id or walk.run.run_id
    return [
        {
            "effect_id": effect.effect_id,
            "tool": effect.tool,
            "state": effect.state.value,
            "external_id": effect.external_id,
        }
        for member in runs.tree(tx, root_id)
        for effect in effects.list_for_run(tx, member.run_id)
        if effect.is_write and effect.state in _STANDING
    ]


def _ended(walk: Walk, mode: FailureMode) -> RunOutcome:
    return RunOutcome(state=RunState.SUCCEEDED, output=dict(walk.outputs), end_state=mode.end)


def _failure(code: str, message: str, *, output: Json = None) -> RunOutcome:
    return RunOutcome(state=RunState.FAILED, output=output, error_code=code, error_message=message)


def _open(tx: Tx, durable: Durable, level: int) -> Json:
    spans.put(tx, emit.workflow_span(durable.run, autonomy_level=level))
    return None
