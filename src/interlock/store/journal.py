"""The journal: the recorded result of each named operation of a run; replay answers from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import bindparam, select

from interlock.domain.errors import StepNameReusedError
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import JournalEntry
from interlock.store.columns import pack, pack_optional, unpack, unpack_object
from interlock.store.statement import Row, Statement
from interlock.store.tables import step as table
from interlock.store.tx import Tx

_FOUND = select(table).where(table.c.run_id == bindparam("run_id")).order_by(table.c.at_us)
_OF_RUN = Statement(_FOUND)


def load(
    tx: Tx, run_id: RunId, *, kinds: Collection[str] | None = None
) -> dict[StepName, JournalEntry]:
    """Return what a run has recorded (of some kinds), by name, in the order it was recorded."""
    of_run = {"run_id": run_id}
    rows: Iterable[Row] = (
        tx.rows(_OF_RUN, of_run)
        if kinds is None
        else tx.connection.execute(_FOUND.where(table.c.kind.in_(kinds)), of_run).mappings()
    )
    return _entries(rows)


def find(tx: Tx, run_id: RunId, names: Collection[StepName]) -> dict[StepName, JournalEntry]:
    """Return what a run has recorded under these names."""
    query = _FOUND.where(table.c.name.in_(names))
    return _entries(tx.connection.execute(query, {"run_id": run_id}).mappings())


def _entries(rows: Iterable[Row]) -> dict[StepName, JournalEntry]:
    entries = (
        JournalEntry(
            name=StepName(row["name"]),
            kind=row["kind"],
            value=unpack(row["value"]),
            error=unpack_object(row["error"]) if row["error"] else None,
            input_digest=row["input_digest"],
            epoch=row["epoch"],
            at_us=row["at_us"],
        )
        for row in rows
    )
    return {entry.name: entry for entry in entries}


def expect(tx: Tx, run_id: RunId) -> None:
    """Say that all that a run has recorded will be asked for."""
    tx.expect(_OF_RUN, {"run_id": run_id})


def put(tx: Tx, run_id: RunId, entry: JournalEntry) -> None:
    """Record a result; raises `StepNameReusedError` if the run has one under this name."""
    tx.insert_new(
        table,
        {
            "run_id": run_id,
            "name": entry.name,
            "kind": entry.kind,
            "value": pack(entry.value),
            "error": pack_optional(entry.error),
            "input_digest": entry.input_digest,
            "epoch": entry.epoch,
            "at_us": entry.at_us,
        },
        unless=lambda: StepNameReusedError(f"the run `{run_id}` has a step `{entry.name}` already"),
    )
