"""Limits that a workflow declares for its runs: how many wait, how many go on, which one by one."""

from __future__ import annotations

from interlock.calls.durable import Dispatch, Durable
from interlock.domain.canonical import Json, canonical_text, digest
from interlock.domain.errors import IntakeFullError
from interlock.domain.ids import RunId, StepName
from interlock.domain.pointer import fill
from interlock.domain.run import Run, StartRequest
from interlock.domain.workflow import WorkflowSpec
from interlock.store import runs
from interlock.store.tx import Tx

RETRY_AFTER_S = 30
_GATE = StepName("#gate")
_KEY_MOST = 200


async def enter_gates(durable: Durable, spec: WorkflowSpec) -> None:
    """Let a run go on once it may by its workflow's `concurrency` and `lock`.

    A child run goes on under its root's; an undo is one too, and waits for nobody.
    """
    run = durable.run
    if run.request.parent_id is not None:
        return
    keys = gates_of(spec, run)
    if keys:
        is_kept = spec.lock is not None and spec.lock.hold_while_waiting
        await durable.hold(_GATE, keys, hold_while_waiting=is_kept)


def accept(
    tx: Tx, dispatch: Dispatch, spec: WorkflowSpec, request: StartRequest, *, body_digest: str
) -> tuple[RunId, bool]:
    """Accept a run from outside, unless too many of its workflow have yet to begin.

    Raises `IntakeFullError`, after which `tx` has to be rolled back. An event that was accepted
    before gets its run all the same.
    """
    run_id, is_new = dispatch.start(tx, request, body_digest=body_digest)
    if is_new and runs.has_queued(tx, spec.tenant, spec.name, more_than=spec.max_queued):
        raise IntakeFullError(
            f"{spec.max_queued} runs of `{spec.name}` wait to begin; start it again later",
            retry_after_s=RETRY_AFTER_S,
        )
    return run_id, is_new


def gates_of(spec: WorkflowSpec, run: Run) -> dict[str, int]:
    """Return the gates of a run of this workflow, each with how many runs may hold it at once.

    Raises `InputError` if the lock's key is not in the run's input.
    """
    request, gates = run.request, {}
    if spec.concurrency is not None:
        owner = f"/{request.tenant}" if spec.concurrency.per == "tenant" else ""
        gates[f"runs/{spec.name}/{request.environment}{owner}"] = spec.concurrency.runs
    if spec.lock is not None:
        value = _text(fill(spec.lock.key, {"input": request.input}))
        name = spec.lock.name or spec.name
        gates[f"lock/{request.tenant}/{request.environment}/{name}/{value}"] = 1
    return gates


def _text(value: Json) -> str:
    """Return a value as part of a key that people read; what is long is named by its digest."""
    text = value if isinstance(value, str) else canonical_text(value)
    return text if len(text) <= _KEY_MOST else digest(value)
