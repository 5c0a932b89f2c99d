"""What waiting runs wait for, and the signals sent to them; a signal is given to one wait only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import bindparam, func, select, update

from interlock.domain.canonical import Json
from interlock.domain.ids import RunId, StepName
from interlock.store.columns import pack, unpack
from interlock.store.statement import Statement
from interlock.store.tables.runs import signal, wait
from interlock.store.tx import Tx

_MINE = wait.c.run_id == bindparam("of_run")
_OF_RUN = Statement(select(wait).where(_MINE).order_by(wait.c.name))
_CLOSE_ALL = Statement(wait.delete().where(_MINE))
_NEXT_DUE = Statement(select(func.min(wait.c.due_us).label("due_us")))
_NEXT_SIGNAL = Statement(
    select(signal.c.signal_id, signal.c.value)
    .where(
        signal.c.run_id == bindparam("of_run"),
        signal.c.topic == bindparam("topic"),
        signal.c.consumed_by.is_(None),
    )
    .order_by(signal.c.signal_id)
    .limit(1)
)
_CONSUME = Statement(
    update(signal).where(signal.c.signal_id == bindparam("of_signal")), "consumed_by"
)


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
    return [Wait(**row) for row in tx.rows(_OF_RUN, {"of_run": run_id})]


def close_all(tx: Tx, run_id: RunId) -> None:
    """Remove all waits of a run, as when it goes on; those still needed are opened again."""
    tx.later(_CLOSE_ALL, {"of_run": run_id})


def next_due(tx: Tx) -> int | None:
    """Return the first time that anybody waits for; only reads, so that looking costs little."""
    (row,) = tx.rows(_NEXT_DUE, {})
    return None if row["due_us"] is None else int(row["due_us"])


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


def sent(tx: Tx, run_id: RunId, dedupe_keys: Collection[str]) -> frozenset[str]:
    """Return which of these keys signals of a run came with, taken or not."""
    of_these = (signal.c.run_id == run_id, signal.c.dedupe_key.in_(dedupe_keys))
    found = tx.connection.execute(select(signal.c.dedupe_key).where(*of_these))
    return frozenset(found.scalars())


def expect_signal(tx: Tx, run_id: RunId, topic: str) -> None:
    """Say that a signal of a topic will be asked for."""
    tx.expect(_NEXT_SIGNAL, {"of_run": run_id, "topic": topic})


def take_signal(tx: Tx, run_id: RunId, topic: str, *, by: StepName) -> Signal | None:
    """Take the oldest signal of a topic that no wait has taken; the run's row must be locked."""
    rows = tx.rows(_NEXT_SIGNAL, {"of_run": run_id, "topic": topic})
    if not rows:
        return None
    (row,) = rows
    tx.later(_CONSUME, {"of_signal": row["signal_id"], "consumed_by": by})
    return Signal(signal_id=row["signal_id"], value=unpack(row["value"]))


def has_signal(tx: Tx, run_id: RunId, topic: str) -> bool:
    """Return whether a signal of a topic is there for the taking."""
    return bool(tx.rows(_NEXT_SIGNAL, {"of_run": run_id, "topic": topic}))
