"""What waiting runs wait for, and the signals sent to them; a signal is given to one wait only."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, select, update

from interlock.domain.canonical import Json
from interlock.domain.ids import RunId, StepName
from interlock.store.columns import pack, unpack
from interlock.store.tables import signal, wait
from interlock.store.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One open wait of a run: for a signal of `topic`, at most until `due_us` (None: for ever)."""

    run_id: RunId
    name: StepName
    topic: str
    due_us: int | None
    opened_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A signal that was taken; wrapped, so that a null value is not mistaken for none."""

    signal_id: str
    value: Json


def open_wait(tx: Tx, run_id: RunId, name: StepName, topic: str, due_us: int | None) -> None:
    """Write that a run waits; the same wait again changes nothing."""
    tx.insert_once(
        wait,
        {
            "run_id": run_id,
            "name": name,
            "topic": topic,
            "due_us": due_us,
            "opened_us": tx.now_us,
        },
    )


def list_waits(tx: Tx, run_id: RunId) -> list[Wait]:
    """Return the open waits of a run, by name."""
    query = select(wait).where(wait.c.run_id == run_id).order_by(wait.c.name)
    return [Wait(**row) for row in tx.connection.execute(query).mappings()]


def close_all(tx: Tx, run_id: RunId) -> None:
    """Remove all waits of a run, as when it goes on; those still needed are opened again."""
    tx.connection.execute(wait.delete().where(wait.c.run_id == run_id))


def is_due(tx: Tx, now_us: int) -> bool:
    """Return whether the time of any wait has come; only reads, so that looking costs little."""
    return bool(tx.connection.execute(select(exists().where(wait.c.due_us <= now_us))).scalar_one())


def due(tx: Tx, now_us: int, limit: int) -> list[tuple[RunId, StepName]]:
    """Return waits whose time has come, longest overdue first.

    On Postgres the rows are locked and those that another worker has locked are left out.
    """
    query = select(wait.c.run_id, wait.c.name).where(wait.c.due_us <= now_us)
    query = query.order_by(wait.c.due_us).limit(limit).with_for_update(skip_locked=True)
    return [(RunId(run_id), StepName(name)) for run_id, name in tx.connection.execute(query)]


def put_signal(tx: Tx, run_id: RunId, topic: str, value: Json, dedupe_key: str) -> bool:
    """Keep a signal for a run that exists; False if the run was sent one with this key before."""
    return tx.insert_once(
        signal,
        {
            "signal_id": tx.new_id(),
            "run_id": run_id,
            "topic": topic,
            "dedupe_key": dedupe_key,
            "value": pack(value),
            "at_us": tx.now_us,
        },
    )


def take_signal(tx: Tx, run_id: RunId, topic: str, *, by: StepName) -> Signal | None:
    """Take the oldest signal of a topic that no wait has taken; the run's row must be locked."""
    row = tx.connection.execute(
        select(signal.c.signal_id, signal.c.value)
        .where(*_is_free(run_id, topic))
        .order_by(signal.c.signal_id)
        .limit(1)
    ).first()
    if row is None:
        return None
    tx.connection.execute(
        update(signal).where(signal.c.signal_id == row.signal_id).values(consumed_by=by)
    )
    return Signal(signal_id=row.signal_id, value=unpack(row.value))


def has_signal(tx: Tx, run_id: RunId, topic: str) -> bool:
    """Return whether a signal of a topic is there for the taking."""
    query = select(exists().where(*_is_free(run_id, topic)))
    return bool(tx.connection.execute(query).scalar_one())


def _is_free(run_id: RunId, topic: str) -> tuple[ColumnElement[bool], ...]:
    return (signal.c.run_id == run_id, signal.c.topic == topic, signal.c.consumed_by.is_(None))
