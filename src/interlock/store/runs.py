"""Runs: claimed, locked, parked, taken on and ended, each change by compare-and-set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from sqlalchemy import BigInteger, Update, bindparam, func, or_, select, union_all, update

from interlock.domain.canonical import Json
from interlock.domain.errors import FencedError, NotFoundError
from interlock.domain.ids import AgentName, ExecutorId, RunId, TenantId, WorkflowName
from interlock.domain.label import Labels
from interlock.domain.run import SESSION, VERSION_MISSING, Run, RunState, StartRequest, TriggerRef
from interlock.store.columns import (
    pack,
    pack_labels,
    pack_optional,
    pack_seats,
    unpack,
    unpack_labels,
    unpack_seats,
)
from interlock.store.statement import Row, Statement
from interlock.store.tables.keys import api_key, run_token
from interlock.store.tables.runs import FOR_BREAKER, gate_wait, wait
from interlock.store.tables.runs import run as table
from interlock.store.tx import Tx

OWNED = (RunState.RUNNING, RunState.COMPENSATING)
"""States in which a worker owns the run."""
FINAL = tuple(state for state in RunState if state.is_final)
_FOUND = select(table).where(table.c.run_id == bindparam("run_id"))
_BY_ID = Statement(_FOUND)
_BY_ID_LOCKED = Statement(_FOUND.with_for_update())
_CHANGING = (
    "state",
    "epoch",
    "segment",
    "recoveries",
    "executor_id",
    "is_cancel_requested",
    "is_pause_requested",
    "reason",
    "labels",
)
_CLAIM = Statement(
    update(table)
    .where(
        table.c.run_id == bindparam("of_run"),
        table.c.state == RunState.QUEUED,
        table.c.segment == bindparam("of_segment"),
    )
    .values(
        state=RunState.RUNNING,
        epoch=table.c.epoch + 1,
        executor_id=bindparam("by"),
        reason=None,
        started_us=func.coalesce(table.c.started_us, bindparam("now_us")),
    )
    .returning(table)
)
_END = ("state", "output", "end_state", "error_code", "error_message", "ended_us")
_FINISH = Statement(
    update(table)
    .where(
        table.c.run_id == bindparam("of_run"),
        table.c.epoch == bindparam("of_epoch"),
        or_(*(table.c.state == state for state in OWNED)),
    )
    .values(executor_id=None, reason=None, **{name: bindparam(f"at_{name}") for name in _END})
    .returning(table)
)
_MINE = (
    table.c.tenant == bindparam("tenant"),
    table.c.workflow == bindparam("workflow"),
    table.c.ended_us.is_(None),
)
# From the gates, which are few: those that wait for people may be very many.
_HELD_UP = Statement(
    union_all(
        select(table.c.run_id).where(table.c.state == RunState.QUEUED, *_MINE),
        select(gate_wait.c.run_id)
        .join(table, table.c.run_id == gate_wait.c.run_id)
        .where(table.c.state == RunState.WAITING, *_MINE)
        .distinct(),
        select(wait.c.run_id)
        .join(table, table.c.run_id == wait.c.run_id)
        .where(FOR_BREAKER, *_MINE)
        .distinct(),
    )
    .offset(bindparam("more_than", type_=BigInteger))
    .limit(1)
)
_REQUEUE = Statement(
    update(table)
    .where(
        table.c.run_id == bindparam("of_run"),
        table.c.state == bindparam("was_state"),
        table.c.epoch == bindparam("was_epoch"),
        table.c.ended_us.is_(None),
    )
    .values(state=RunState.QUEUED, executor_id=None, reason=None)
    .returning(table)
)
_DUE_LOCKED = Statement(
    select(table)
    .join(wait, wait.c.run_id == table.c.run_id)
    .where(wait.c.due_us <= bindparam("now_us"), table.c.state == RunState.WAITING)
    .order_by(wait.c.due_us)
    .limit(bindparam("most", type_=BigInteger))
    # The waits too: a breaker changes those of many runs, in an order of its own.
    .with_for_update(skip_locked=True)
)
_DROP_WAITS = Statement(wait.delete().where(wait.c.run_id == bindparam("run_id")))
_CHANGING_LOCKED = Statement(
    select(*(table.c[name] for name in _CHANGING))
    .where(table.c.run_id == bindparam("run_id"))
    .with_for_update()
)


def insert(tx: Tx, run_id: RunId, request: StartRequest) -> None:
    """Insert a queued run; `triggers.accept` is the only caller, after it took the trigger key."""
    tx.insert(
        table,
        {
            "run_id": run_id,
            "parent_id": request.parent_id,
            "root_id": request.root_id or run_id,
            "depth": request.depth,
            "tenant": request.tenant,
            "department": request.department,
            "workflow": request.workflow,
            "workflow_version": request.workflow_version,
            "release": request.release,
            "environment": request.environment,
            "trigger_kind": request.trigger.kind,
            "trigger_source": request.trigger.source,
            "trigger_key": request.trigger.key,
            "agent": request.agent,
            "seats": pack_seats(request.seats),
            "deciding": pack_seats(request.deciding),
            "user": request.user,
            "input": pack(request.input),
            "labels": pack_labels(request.labels),
            "deadline_us": request.deadline_us,
            "state": RunState.QUEUED,
            "epoch": 0,
            "segment": 0,
            "recoveries": 0,
            "priority": request.priority,
            "is_cancel_requested": False,
            "is_pause_requested": False,
            "created_us": tx.now_us,
        },
    )


def get(tx: Tx, run_id: RunId) -> Run:
    """Return a run; raises `NotFoundError`."""
    run = find(tx, run_id)
    if run is None:
        raise NotFoundError(f"there is no run `{run_id}`")
    return run


def find(tx: Tx, run_id: RunId) -> Run | None:
    """Return a run, or None. `request.root_id` is always set; a root names itself."""
    locked = tx.locked.get(run_id)
    if locked is not None:
        return locked
    rows = tx.rows(_BY_ID, {"run_id": run_id})
    return run_of(rows[0]) if rows else None


def claim(tx: Tx, run_id: RunId, *, segment: int, executor_id: ExecutorId) -> Run | None:
    """Own a queued run with a new epoch; None if it is not queued at this segment (stale hint)."""
    of_hint = {"of_run": run_id, "of_segment": segment}
    rows = tx.rows(_CLAIM, of_hint | {"by": executor_id, "now_us": tx.now_us})
    return _locked(tx, rows)


def lock(tx: Tx, run_id: RunId, *, epoch: int) -> Run:
    """Lock the row of a run until the transaction ends, as its owner.

    Raises `FencedError` if somebody else owns it or nobody does.
    """
    return _checked(lock_any(tx, run_id), epoch)


def lock_again(tx: Tx, claimed: Run) -> Run:
    """Lock the row of a run as `lock` does, for the owner that knows it since its claim.

    Only what may have changed since is read.
    """
    rows = tx.rows(_CHANGING_LOCKED, {"run_id": claimed.run_id})
    if not rows:
        raise NotFoundError(f"there is no run `{claimed.run_id}`")
    (row,) = rows
    run = replace(
        claimed,
        state=RunState(row["state"]),
        epoch=row["epoch"],
        segment=row["segment"],
        recoveries=row["recoveries"],
        executor_id=ExecutorId(row["executor_id"]) if row["executor_id"] else None,
        is_cancel_requested=row["is_cancel_requested"],
        is_pause_requested=row["is_pause_requested"],
        reason=row["reason"],
        labels=unpack_labels(row["labels"]),
    )
    tx.locked[run.run_id] = _checked(run, claimed.epoch)
    return run


def _checked(run: Run, epoch: int) -> Run:
    if run.state not in OWNED or run.epoch != epoch:
        raise _fenced(run.run_id, epoch)
    return run


def lock_any(tx: Tx, run_id: RunId) -> Run:
    """Lock the row of a run whoever owns it, as those do who wake it; raises `NotFoundError`."""
    locked = tx.locked.get(run_id)
    if locked is not None:
        return locked
    rows = tx.rows(_BY_ID_LOCKED, {"run_id": run_id})
    if not rows:
        raise NotFoundError(f"there is no run `{run_id}`")
    tx.locked[run_id] = run_of(rows[0])
    return tx.locked[run_id]


def finish(
    tx: Tx,
    run_id: RunId,
    *,
    epoch: int,
    state: RunState,
    output: Json = None,
    end_state: str | None = None,
    error_code: str | None = None,
    error_message: str | None = None,
) -> Run:
    """End a run that this epoch owns and drop its waits; raises `FencedError`."""
    end = {
        "of_run": run_id,
        "of_epoch": epoch,
        "at_state": state,
        "at_output": pack_optional(output),
        "at_end_state": end_state,
        "at_error_code": error_code,
        "at_error_message": error_message,
        "at_ended_us": tx.now_us,
    }
    run = _locked(tx, tx.rows(_FINISH, end))
    if run is None:
        raise _fenced(run_id, epoch)
    tx.later(_DROP_WAITS, {"run_id": run_id})
    return run


def park(tx: Tx, run_id: RunId, *, epoch: int, reason: str | None) -> Run:
    """Let a run wait: nobody owns it, and its next stretch is a new segment.

    It got on, so that recoveries count anew.
    """
    return _own(
        tx,
        run_id,
        epoch,
        state=RunState.WAITING,
        segment=table.c.segment + 1,
        recoveries=0,
        executor_id=None,
        reason=reason,
    )


def begin_compensating(tx: Tx, run_id: RunId, *, epoch: int) -> Run:
    """Mark that a run undoes what it did; its owner stays."""
    return _own(tx, run_id, epoch, state=RunState.COMPENSATING)


def lock_due(tx: Tx, now_us: int, *, limit: int) -> list[Run]:
    """Lock and return runs that wait for a time that has come, longest overdue first.

    On Postgres those that somebody else has locked are left out, or whose wait somebody changes.
    """
    rows = tx.rows(_DUE_LOCKED, {"now_us": now_us, "most": limit})
    due: dict[str, Run] = {run.run_id: run for run in map(run_of, rows)}
    tx.locked |= due
    return list(due.values())


def requeue(tx: Tx, run_id: RunId, *, state: RunState, epoch: int) -> Run | None:
    """Queue a run at its segment again; None if it is no longer in this state and epoch."""
    known = {"of_run": run_id, "was_state": state, "was_epoch": epoch}
    return _locked(tx, tx.rows(_REQUEUE, known))


def raise_labels(tx: Tx, run_id: RunId, labels: Labels) -> Labels:
    """Add labels to a run's and return the union; labels are never lowered.

    What a session of an outside agent has read, the agent knows in its other sessions too: they
    find by their key that they are behind.
    """
    locked = lock_any(tx, run_id)
    before = locked.labels
    after = before.join(labels)
    if after != before:
        if locked.request.trigger.kind == SESSION:
            of_session = select(run_token.c.key_id).where(run_token.c.run_id == run_id)
            learned = update(api_key).where(api_key.c.key_id.in_(of_session))
            tx.connection.execute(learned.values(learned=api_key.c.learned + 1))
        _change(tx, update(table).where(table.c.run_id == run_id).values(labels=pack_labels(after)))
    return after


def request_cancel(tx: Tx, run_id: RunId) -> Run | None:
    """Ask one run to stop; None if it has ended already. Its children are asked one by one."""
    return _change(
        tx,
        update(table)
        .where(table.c.run_id == run_id, table.c.ended_us.is_(None))
        .values(is_cancel_requested=True),
    )


def request_pause(tx: Tx, run_id: RunId) -> Run | None:
    """Ask the owner of a run to pause it; None if nobody owns it."""
    return _change(
        tx,
        update(table)
        .where(table.c.run_id == run_id, table.c.state.in_(OWNED))
        .values(is_pause_requested=True),
    )


def pause(tx: Tx, run_id: RunId, *, from_states: Collection[RunState]) -> Run | None:
    """Let a run stand still until it is resumed; None if it is in no state of `from_states`.

    Nobody owns it, its waits are dropped and no earlier hint finds it.
    """
    paused = _change(
        tx,
        update(table)
        .where(table.c.run_id == run_id, table.c.state.in_(from_states))
        .values(
            state=RunState.PAUSED,
            segment=table.c.segment + 1,
            executor_id=None,
            is_pause_requested=False,
            reason=None,
        ),
    )
    if paused is not None:
        tx.connection.execute(wait.delete().where(wait.c.run_id == run_id))
    return paused


def resume(tx: Tx, run_id: RunId) -> Run | None:
    """Queue a paused or dead-lettered run with its recoveries counted anew, or take a pause back.

    None if the run is neither, nor to be paused.
    """
    going_on = _change(
        tx,
        update(table)
        .where(table.c.run_id == run_id, table.c.is_pause_requested, table.c.ended_us.is_(None))
        .values(is_pause_requested=False),
    )
    if going_on is not None:
        return going_on
    stopped = (RunState.PAUSED, RunState.DEAD_LETTERED)
    return _change(
        tx,
        update(table)
        .where(table.c.run_id == run_id, table.c.state.in_(stopped))
        .values(state=RunState.QUEUED, recoveries=0, reason=None),
    )


def list_runs(
    tx: Tx,
    *,
    tenant: TenantId | None = None,
    workflow: WorkflowName | None = None,
    states: Collection[RunState] = (),
    limit: int = 50,
    before_us: int | None = None,
) -> list[Run]:
    """Return runs that were created before `before_us`, newest first."""
    query = select(table).order_by(table.c.created_us.desc(), table.c.run_id.desc()).limit(limit)
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    if workflow is not None:
        query = query.where(table.c.workflow == workflow)
    if states:
        query = query.where(table.c.state.in_(states))
        if not set(states) & set(FINAL):
            # Says what follows from the states, so that the index over live runs can be used.
            query = query.where(table.c.ended_us.is_(None))
    if before_us is not None:
        query = query.where(table.c.created_us < before_us)
    return [run_of(row) for row in tx.connection.execute(query).mappings()]


def miss_version(tx: Tx, run_id: RunId, *, what: str) -> Run | None:
    """Let a queued run wait for a worker that can run it; None if it is not queued any more."""
    return _change(
        tx,
        update(table)
        .where(table.c.run_id == run_id, table.c.state == RunState.QUEUED)
        .values(state=RunState.WAITING, reason=f"{VERSION_MISSING}/{what}"),
    )


def list_missing_version(tx: Tx, *, limit: int = 500) -> list[Run]:
    """Return runs that wait for a worker that can run them, oldest first."""
    query = select(table).where(table.c.state == RunState.WAITING, table.c.ended_us.is_(None))
    query = query.where(table.c.reason.startswith(f"{VERSION_MISSING}/", autoescape=True))
    rows = tx.connection.execute(query.order_by(table.c.created_us).limit(limit)).mappings()
    return [run_of(row) for row in rows]


def list_queued(tx: Tx) -> list[tuple[RunId, int]]:
    """Return id and segment of every queued run, oldest first."""
    query = select(table.c.run_id, table.c.segment).order_by(table.c.created_us, table.c.run_id)
    query = query.where(table.c.state == RunState.QUEUED, table.c.ended_us.is_(None))
    return [(RunId(run_id), segment) for run_id, segment in tx.connection.execute(query)]


def has_queued(tx: Tx, tenant: TenantId, workflow: WorkflowName, *, more_than: int) -> bool:
    """Return whether more runs of a workflow than that cannot go on for now.

    They have yet to begin, are at a gate, or wait for a server whose breaker is open.
    """
    mine = {"tenant": tenant, "workflow": workflow, "more_than": more_than}
    return bool(tx.rows(_HELD_UP, mine))


def children(tx: Tx, run_id: RunId) -> list[Run]:
    """Return the child runs of a run, oldest first."""
    query = select(table).where(table.c.parent_id == run_id)
    rows = tx.connection.execute(query.order_by(table.c.created_us, table.c.run_id)).mappings()
    return [run_of(row) for row in rows]


def ancestors(tx: Tx, run_id: RunId) -> list[RunId]:
    """Return the runs above a run, nearest first."""
    above = select(table.c.parent_id, table.c.depth).where(table.c.run_id == run_id)
    chain = above.cte("chain", recursive=True)
    parent = table.alias("parent")
    chain = chain.union_all(
        select(parent.c.parent_id, parent.c.depth).join(chain, parent.c.run_id == chain.c.parent_id)
    )
    query = select(chain.c.parent_id).where(chain.c.parent_id.is_not(None))
    rows = tx.connection.execute(query.order_by(chain.c.depth.desc())).scalars()
    return [RunId(row) for row in rows]


def descendants(tx: Tx, run_id: RunId) -> list[Run]:
    """Return all runs below a run, oldest first."""
    below = select(table.c.run_id).where(table.c.parent_id == run_id).cte("below", recursive=True)
    child = table.alias("child")
    below = below.union_all(select(child.c.run_id).join(below, child.c.parent_id == below.c.run_id))
    query = select(table).where(table.c.run_id.in_(select(below.c.run_id)))
    rows = tx.connection.execute(query.order_by(table.c.created_us, table.c.run_id)).mappings()
    return [run_of(row) for row in rows]


def tree(tx: Tx, root_id: RunId) -> list[Run]:
    """Return a root and all runs below it, oldest first."""
    query = select(table).where(table.c.root_id == root_id)
    rows = tx.connection.execute(query.order_by(table.c.created_us, table.c.run_id)).mappings()
    return [run_of(row) for row in rows]


def count_by_state(tx: Tx, *, tenant: TenantId | None = None) -> dict[RunState, int]:
    """Return how many runs are in each state; states without runs are absent."""
    query = select(table.c.state, func.count()).group_by(table.c.state)
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    return {RunState(state): count for state, count in tx.connection.execute(query)}


def run_of(row: Row) -> Run:
    """Build a run from a row of its table."""
    request = StartRequest(
        workflow=WorkflowName(row["workflow"]),
        workflow_version=row["workflow_version"],
        release=row["release"],
        environment=row["environment"],
        tenant=TenantId(row["tenant"]),
        department=row["department"],
        trigger=TriggerRef(
            kind=row["trigger_kind"], source=row["trigger_source"], key=row["trigger_key"]
        ),
        input=unpack(row["input"]),
        agent=AgentName(row["agent"]) if row["agent"] else None,
        seats=unpack_seats(row["seats"]),
        deciding=unpack_seats(row["deciding"]),
        user=row["user"],
        parent_id=RunId(row["parent_id"]) if row["parent_id"] else None,
        root_id=RunId(row["root_id"]),
        depth=row["depth"],
        # Those it started with are not kept apart: labels only rise.
        labels=unpack_labels(row["labels"]),
        deadline_us=row["deadline_us"],
        priority=row["priority"],
    )
    return Run(
        run_id=RunId(row["run_id"]),
        request=request,
        state=RunState(row["state"]),
        epoch=row["epoch"],
        segment=row["segment"],
        recoveries=row["recoveries"],
        created_us=row["created_us"],
        executor_id=ExecutorId(row["executor_id"]) if row["executor_id"] else None,
        lost_us=row["lost_us"],
        started_us=row["started_us"],
        ended_us=row["ended_us"],
        labels=request.labels,
        is_cancel_requested=row["is_cancel_requested"],
        is_pause_requested=row["is_pause_requested"],
        reason=row["reason"],
        end_state=row["end_state"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        output=unpack(row["output"]),
    )


def _own(tx: Tx, run_id: RunId, epoch: int, **values: object) -> Run:
    run = _change(
        tx,
        update(table)
        .where(table.c.run_id == run_id, table.c.epoch == epoch, table.c.state.in_(OWNED))
        .values(**values),
    )
    if run is None:
        raise _fenced(run_id, epoch)
    return run


def _change(tx: Tx, statement: Update) -> Run | None:
    return _locked(tx, tx.connection.execute(statement.returning(table)).mappings().all())


def _locked(tx: Tx, rows: Sequence[Row]) -> Run | None:
    """Return the run that a statement changed, and so locked; None if there was none."""
    if not rows:
        return None
    (row,) = rows
    run = run_of(row)
    tx.locked[run.run_id] = run
    return run


def _fenced(run_id: RunId, epoch: int) -> FencedError:
    return FencedError(f"the run `{run_id}` is no longer owned in epoch {epoch}")
