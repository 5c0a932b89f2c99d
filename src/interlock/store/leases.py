"""Workers: their leases by database time, the runs they own, takeover of the dead, leadership."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import RowMapping, case, exists, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from interlock.domain.ids import ExecutorId
from interlock.domain.run import Abilities, Run, RunState
from interlock.store.columns import pack, unpack
from interlock.store.runs import OWNED, run_of
from interlock.store.tables.runs import executor, leader, run, step, step_past
from interlock.store.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """One worker process: `host` names machine and PID namespace, `pid_started` tells pids apart.

    It is presumed dead after `lease_end_us` by database time.
    """

    executor_id: ExecutorId
    host: str
    pid: int
    pid_started: str
    started_us: int
    lease_end_us: int
    abilities: Abilities
    is_draining: bool = False


def register(
    tx: Tx,
    executor_id: ExecutorId,
    *,
    host: str,
    pid: int,
    pid_started: str,
    ttl_us: int,
    abilities: Abilities | None = None,
) -> Executor:
    """Write a worker's row with a fresh lease."""
    row = Executor(
        executor_id=executor_id,
        host=host,
        pid=pid,
        pid_started=pid_started,
        started_us=tx.now_us,
        lease_end_us=tx.now_us + ttl_us,
        abilities=abilities or Abilities(),
    )
    tx.upsert(
        executor,
        {
            "executor_id": executor_id,
            "host": host,
            "pid": pid,
            "pid_started": pid_started,
            "started_us": row.started_us,
            "lease_end_us": row.lease_end_us,
            "is_draining": False,
            "release_format": row.abilities.release_format,
            "functions": pack([*sorted(row.abilities.functions)]),
        },
    )
    return row


def renew(tx: Tx, executor_id: ExecutorId, *, ttl_us: int, is_draining: bool = False) -> bool:
    """Extend a lease from now; False if the row is gone: somebody took this worker for dead."""
    statement = (
        update(executor)
        .where(executor.c.executor_id == executor_id)
        .values(lease_end_us=tx.now_us + ttl_us, is_draining=is_draining)
    )
    return tx.connection.execute(statement).rowcount == 1


def list_executors(tx: Tx) -> list[Executor]:
    """Return all workers that are registered, oldest first."""
    query = select(executor).order_by(executor.c.started_us, executor.c.executor_id)
    return [_executor_of(row) for row in tx.connection.execute(query).mappings()]


def list_able(tx: Tx, needed: Abilities) -> list[Executor]:
    """Return the workers that can run what needs this: alive by their lease, and not draining."""
    return [
        one
        for one in list_executors(tx)
        if one.lease_end_us > tx.now_us
        and not one.is_draining
        and not one.abilities.lacking(needed)
    ]


def _executor_of(row: RowMapping) -> Executor:
    values = dict(row)
    functions, release_format = unpack(values.pop("functions")), values.pop("release_format")
    # INVARIANT: `register` writes a list.
    assert isinstance(functions, list)
    abilities = Abilities(release_format=release_format, functions=frozenset(map(str, functions)))
    return Executor(**values, abilities=abilities)


def remove(tx: Tx, executor_id: ExecutorId) -> bool:
    """Remove a worker's row; return whether it was there."""
    statement = executor.delete().where(executor.c.executor_id == executor_id)
    return tx.connection.execute(statement).rowcount == 1


def owned_runs(tx: Tx, executor_id: ExecutorId) -> list[Run]:
    """Return the runs that a worker owns, oldest first."""
    query = select(run).where(run.c.executor_id == executor_id, run.c.state.in_(OWNED))
    query = query.where(run.c.ended_us.is_(None)).order_by(run.c.created_us)
    return [run_of(row) for row in tx.connection.execute(query).mappings()]


def orphaned(tx: Tx) -> list[ExecutorId]:
    """Return the owners of runs that are not registered (any more), as no living worker is."""
    query = select(run.c.executor_id).distinct()
    query = query.where(run.c.state.in_(OWNED), run.c.ended_us.is_(None))
    query = query.where(~exists().where(executor.c.executor_id == run.c.executor_id))
    return [ExecutorId(name) for name in tx.connection.execute(query).scalars()]


def takeover(
    tx: Tx, executor_id: ExecutorId, *, max_recoveries: int, was_seen: bool = True
) -> list[Run]:
    """Fence a dead worker's runs with a new epoch and queue them; return them as they are now.

    Unless it `was_seen` to end, the runs remember when they were taken: it may act yet. A run that
    recorded nothing since its last recovery, and has had `max_recoveries`, becomes `dead_lettered`
    instead: it probably kills its workers.
    """
    got_on = or_(
        *(
            exists().where(table.c.run_id == run.c.run_id, table.c.epoch == run.c.epoch)
            for table in (step, step_past)
        )
    )
    recoveries = case((got_on, 1), else_=run.c.recoveries + 1)
    is_hopeless = recoveries > max_recoveries
    statement = (
        update(run)
        .where(
            run.c.executor_id == executor_id,
            run.c.state.in_(OWNED),
            run.c.ended_us.is_(None),
        )
        .values(
            epoch=run.c.epoch + 1,
            recoveries=recoveries,
            state=case((is_hopeless, RunState.DEAD_LETTERED), else_=RunState.QUEUED),
            reason=case((is_hopeless, "recoveries"), else_=None),
            executor_id=None,
            lost_us=run.c.lost_us if was_seen else tx.now_us,
        )
        .returning(run)
    )
    return [run_of(row) for row in tx.connection.execute(statement).mappings().all()]


def leader_of(tx: Tx, role: str) -> ExecutorId | None:
    """Return who leads a role now, or None."""
    query = select(leader.c.executor_id).where(
        leader.c.role == role, leader.c.lease_end_us > tx.now_us
    )
    name = tx.connection.execute(query).scalar()
    return None if name is None else ExecutorId(name)


def take_leadership(tx: Tx, role: str, executor_id: ExecutorId, ttl_us: int) -> bool:
    """Become or stay the one leader of a role for `ttl_us`; False while another one leads."""
    insert = sqlite.insert if tx.dialect == "sqlite" else postgresql.insert
    lease = {"executor_id": executor_id, "lease_end_us": tx.now_us + ttl_us}
    statement = (
        insert(leader)
        .values(role=role, **lease)
        .on_conflict_do_update(
            index_elements=["role"],
            set_=lease,
            where=or_(leader.c.executor_id == executor_id, leader.c.lease_end_us < tx.now_us),
        )
        .returning(leader.c.role)
    )
    return tx.connection.execute(statement).first() is not None
