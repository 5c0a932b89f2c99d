"""The journal: the recorded result of each named operation of a run; replay answers from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import bindparam, func, select, union_all

from interlock.domain.errors import StepNameReusedError
from interlock.domain.ids import RunId, StepName
from interlock.domain.run import JournalEntry
from interlock.store.columns import pack, pack_optional, unpack, unpack_object
from interlock.store.statement import Row, Statement
from interlock.store.tables.runs import step as table
from interlock.store.tables.runs import step_past
from interlock.store.tx import Tx

_FOUND = select(table).where(table.c.run_id == bindparam("run_id")).order_by(table.c.at_us)
_OF_RUN = Statement(_FOUND)
_NAMED = Statement(
    union_all(
        *(
            select(where).where(
                where.c.run_id == bindparam("of_run"),
                where.c.name.in_([bindparam("one"), bindparam("other")]),
            )
            for where in (table, step_past)
        )
    )
)


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
    """Return what a run has recorded under these names, also what was put away."""
    wanted, found = list(names), dict[StepName, JournalEntry]()
    for at in range(0, len(wanted), 2):
        one, *others = wanted[at : at + 2]
        pair = {"of_run": run_id, "one": one, "other": others[0] if others else one}
        found |= _entries(tx.rows(_NAMED, pair))
    return found


def put_away(tx: Tx, run_id: RunId, names: Collection[StepName]) -> list[StepName]:
    """Move what a run has recorded under and below (`<name>#`) these names out of what is loaded.

    Returns the names of what was moved.
    """
    recorded = tx.connection.execute(select(table.c.name).where(table.c.run_id == run_id))
    wanted = frozenset(names)
    moved = [StepName(name) for name in recorded.scalars() if name.partition("#")[0] in wanted]
    of_these = (table.c.run_id == run_id, table.c.name.in_(moved))
    columns = [column.name for column in table.columns]
    tx.connection.execute(step_past.insert().from_select(columns, select(table).where(*of_these)))
    tx.connection.execute(table.delete().where(*of_these))
    return moved


def count_past(tx: Tx, run_id: RunId, *, ending: str) -> int:
    """Return how many rows were put away whose names end so, which the key's index tells."""
    is_such = step_past.c.name.endswith(ending, autoescape=True)
    query = select(func.count()).where(step_past.c.run_id == run_id, is_such)
    return tx.connection.execute(query).scalar_one()


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
