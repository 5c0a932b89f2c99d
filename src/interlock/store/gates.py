"""Gates: who holds which key, who waits for it, and who is next when it is free.

All that a run asks for is given at once or not at all, so that no two runs can hold half of what
each needs. One lock orders all changes on Postgres; it comes before the rows of runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Table, and_, bindparam, exists, func, select, union, update

from interlock.domain.ids import RunId, StepName, TenantId
from interlock.store.effects import lock_key
from interlock.store.statement import Statement
from interlock.store.tables.runs import gate_hold as hold
from interlock.store.tables.runs import gate_turn as turn
from interlock.store.tables.runs import gate_wait as wait
from interlock.store.tx import Tx

_LOCK = "interlock.gates"
_HAS_ANY = Statement(
    union(
        select(hold.c.run_id).where(hold.c.run_id == bindparam("run_id")),
        select(wait.c.run_id).where(wait.c.run_id == bindparam("run_id")),
    ).limit(1)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a run asks for under one name: keys, each with how many may hold it at once.

    Higher `priority` goes first, then the `tenant` whose turn was longest ago, then who asked
    first. `is_kept` says that the run keeps it while it waits for a person.
    """

    run_id: RunId
    name: StepName
    keys: Mapping[str, int]
    priority: int
    tenant: TenantId
    is_kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FullGate:
    """What a run waits for: a key, how many may hold it, and who holds it, longest first."""

    key: str
    places: int
    holders: tuple[RunId, ...]


def lock(tx: Tx) -> None:
    """Let this transaction alone change gates until it ends; before any row of a run is locked."""
    lock_key(tx, _LOCK)


def lock_of(tx: Tx, run_id: RunId) -> bool:
    """Lock gates if the run has anything to do with any; return whether it has."""
    if not tx.rows(_HAS_ANY, {"run_id": run_id}):
        return False
    lock(tx)
    return True


def is_held(tx: Tx, run_id: RunId, name: StepName) -> bool:
    """Return whether a run has what it asked for under a name."""
    query = select(exists().where(hold.c.run_id == run_id, hold.c.name == name))
    return bool(tx.connection.execute(query).scalar_one())


def ask(tx: Tx, wanted: Ask) -> list[RunId]:
    """Take the keys or queue for them; return the runs that now have what they waited for.

    Asking again changes nothing. The newest limit of a key is the one that counts. Gates must be
    locked.
    """
    if is_held(tx, wanted.run_id, wanted.name):
        return [wanted.run_id]
    for key, places in wanted.keys.items():
        tx.insert_once(
            wait,
            {
                "key": key,
                "run_id": wanted.run_id,
                "name": wanted.name,
                "places": places,
                "priority": wanted.priority,
                "tenant": wanted.tenant,
                "is_kept": wanted.is_kept,
                "since_us": tx.now_us,
            },
        )
        tx.connection.execute(update(wait).where(wait.c.key == key).values(places=places))
    return _admit(tx, wanted.keys)


def free(
    tx: Tx, run_id: RunId, *, name: StepName | None = None, with_kept: bool = True
) -> list[RunId]:
    """Give back what a run holds (under a name) and leave the queues; return who is let in.

    Without `with_kept` it keeps what it asked to keep. Gates must be locked.
    """
    of_hold, of_wait = [hold.c.run_id == run_id], [wait.c.run_id == run_id]
    if name is not None:
        of_hold, of_wait = [*of_hold, hold.c.name == name], [*of_wait, wait.c.name == name]
    if not with_kept:
        of_hold.append(hold.c.is_kept.is_(False))
    keys = _delete(tx, hold, of_hold) | _delete(tx, wait, of_wait)
    return _admit(tx, keys)


def list_full(tx: Tx, run_id: RunId) -> list[FullGate]:
    """Return what a run waits for and cannot have, by key; a key with room is left out."""
    query = select(wait.c.key, wait.c.places).where(wait.c.run_id == run_id).order_by(wait.c.key)
    full = []
    for key, places in tx.connection.execute(query).all():
        holders = tx.connection.execute(
            select(hold.c.run_id).where(hold.c.key == key).order_by(hold.c.since_us, hold.c.run_id)
        ).scalars()
        gate = FullGate(key=key, places=places, holders=tuple(RunId(held) for held in holders))
        if len(gate.holders) >= places:
            full.append(gate)
    return full


def _admit(tx: Tx, keys: Collection[str]) -> list[RunId]:
    """Let in, one after the other, whoever is next at these keys and finds all that it asked."""
    admitted = []
    for key in sorted(keys):
        while (entering := _next(tx, key)) is not None:
            run_id, name = entering
            _enter(tx, run_id, name)
            admitted.append(run_id)
    return admitted


def _next(tx: Tx, key: str) -> tuple[RunId, StepName] | None:
    """Return who is next at a key; who also waits for a full one is passed over."""
    other = wait.alias("other")
    held = select(func.count()).where(hold.c.key == other.c.key).correlate(other).scalar_subquery()
    is_stuck = exists().where(
        other.c.run_id == wait.c.run_id, other.c.name == wait.c.name, held >= other.c.places
    )
    turns = and_(turn.c.key == wait.c.key, turn.c.tenant == wait.c.tenant)
    query = (
        select(wait.c.run_id, wait.c.name)
        .outerjoin_from(wait, turn, turns)
        .where(wait.c.key == key, ~is_stuck)
        .order_by(
            wait.c.priority.desc(), func.coalesce(turn.c.turn, 0), wait.c.since_us, wait.c.run_id
        )
        .limit(1)
    )
    row = tx.connection.execute(query).first()
    return None if row is None else (RunId(row.run_id), StepName(row.name))


def _enter(tx: Tx, run_id: RunId, name: StepName) -> None:
    mine = (wait.c.run_id == run_id, wait.c.name == name)
    rows = tx.connection.execute(wait.delete().where(*mine).returning(wait)).mappings().all()
    for row in rows:
        key = row["key"]
        tx.insert_once(
            hold,
            {
                "key": key,
                "run_id": run_id,
                "name": name,
                "is_kept": row["is_kept"],
                "since_us": tx.now_us,
            },
        )
        is_waited_for = select(exists().where(wait.c.key == key))
        if tx.connection.execute(is_waited_for).scalar_one():
            last = select(func.coalesce(func.max(turn.c.turn), 0)).where(turn.c.key == key)
            number = tx.connection.execute(last).scalar_one() + 1
            tx.upsert(turn, {"key": key, "tenant": row["tenant"], "turn": number})
        else:
            # Turns are only counted while somebody waits.
            tx.connection.execute(turn.delete().where(turn.c.key == key))


def _delete(tx: Tx, table: Table, where: list[ColumnElement[bool]]) -> set[str]:
    deleted = tx.connection.execute(table.delete().where(*where).returning(table.c.key))
    return set(deleted.scalars())
