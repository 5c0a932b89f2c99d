"""What people do to live runs from the front doors: pause, resume, signal."""

from __future__ import annotations

from collections.abc import Callable

from interlock.calls.durable import Dispatch
from interlock.domain.canonical import Json
from interlock.domain.errors import ConflictError, InputError
from interlock.domain.ids import RunId
from interlock.domain.run import Run
from interlock.store import registry, runs
from interlock.store.engine import Database
from interlock.store.tx import Tx


def pause(db: Database, dispatch: Dispatch, run_id: RunId) -> bool:
    """Let a run and those below it stand still at their next operation; False if none did."""
    return _with_descendants(db, "run.pause", run_id, dispatch.pause)


def resume(db: Database, dispatch: Dispatch, run_id: RunId) -> bool:
    """Let a paused or dead-lettered run and those below it go on; False if none was."""
    return _with_descendants(db, "run.resume", run_id, dispatch.resume)


def signal(
    db: Database,
    dispatch: Dispatch,
    run: Run,
    topic: str,
    value: Json,
    *,
    by: str,
    key: str | None,
) -> bool:
    """Send a signal to a run; False if this person sent one with this key before.

    Raises `InputError` for a topic that no `wait` step of its workflow names: approvals and the
    ends of children come by signals too, and only from where they are decided. Raises
    `ConflictError` if the run has ended.
    """
    with db.reading() as tx:
        workflow = registry.get_release(tx, run.request.release).workflows[run.request.workflow]
    topics = sorted({step.wait for step in workflow.steps if step.wait is not None})
    if topic not in topics:
        known = ", ".join(f"`{known}`" for known in topics) or "nothing"
        raise InputError(f"no step of `{workflow.name}` waits for `{topic}`, only for {known}")

    def send(tx: Tx) -> bool:
        if runs.lock_any(tx, run.run_id).state.is_final:
            raise ConflictError("the run has ended and hears nothing any more")
        dedupe_key = f"signal/{by}/{key or tx.new_id()}"
        return dispatch.signal(tx, run.run_id, topic, value, dedupe_key=dedupe_key)

    return db.run("run.signal", send)


def _with_descendants(
    db: Database, name: str, run_id: RunId, change: Callable[[Tx, RunId], bool]
) -> bool:
    """Change a run and all below it, one transaction each: whoever ends locks its parent too."""
    with db.reading() as tx:
        below = [run.run_id for run in runs.descendants(tx, run_id)]
    changes = [lambda tx, each=each: change(tx, each) for each in (run_id, *below)]
    has_changed = [db.run(name, one) for one in changes]
    return any(has_changed)
