"""The blackboard of a run tree: versioned values that its runs share; history is kept."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import RowMapping, func, select

from interlock.domain.canonical import Json
from interlock.domain.errors import ConflictError
from interlock.domain.ids import RunId
from interlock.domain.label import Labels
from interlock.store.columns import pack, pack_labels, unpack, unpack_labels
from interlock.store.tables.runs import blackboard as table
from interlock.store.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One version of one value: who wrote it in which run, and the labels that reading it raises.

    Versions of a key start at 1.
    """

    root_id: RunId
    key: str
    version: int
    value: Json
    labels: Labels
    writer: str
    run_id: RunId
    at_us: int


def read(tx: Tx, root_id: RunId, key: str) -> Note | None:
    """Return the newest version of a value, or None."""
    query = select(table).where(table.c.root_id == root_id, table.c.key == key)
    query = query.order_by(table.c.version.desc()).limit(1)
    row = tx.connection.execute(query).mappings().first()
    return None if row is None else _note(row)


def write(
    tx: Tx,
    root_id: RunId,
    key: str,
    value: Json,
    *,
    expected_version: int,
    labels: Labels,
    writer: str,
    run_id: RunId,
) -> int:
    """Add the version after `expected_version` (0: none yet) and return it.

    Raises `ConflictError` if that is not the newest version.
    """
    newest = tx.connection.execute(
        select(func.coalesce(func.max(table.c.version), 0)).where(
            table.c.root_id == root_id, table.c.key == key
        )
    ).scalar_one()
    # Of two writers that both saw the newest version, the primary key lets one through.
    is_written = newest == expected_version and tx.insert_once(
        table,
        {
            "root_id": root_id,
            "key": key,
            "version": expected_version + 1,
            "value": pack(value),
            "labels": pack_labels(labels),
            "writer": writer,
            "run_id": run_id,
            "at_us": tx.now_us,
        },
    )
    if not is_written:
        raise ConflictError(f"`{key}` has a newer version than {expected_version}; read it again")
    return expected_version + 1


def history(tx: Tx, root_id: RunId, key: str | None = None) -> list[Note]:
    """Return every version of one value (None: of all), by key, oldest first."""
    query = select(table).where(table.c.root_id == root_id)
    if key is not None:
        query = query.where(table.c.key == key)
    rows = tx.connection.execute(query.order_by(table.c.key, table.c.version)).mappings()
    return [_note(row) for row in rows]


def _note(row: RowMapping) -> Note:
    return Note(
        root_id=RunId(row["root_id"]),
        key=row["key"],
        version=row["version"],
        value=unpack(row["value"]),
        labels=unpack_labels(row["labels"]),
        writer=row["writer"],
        run_id=RunId(row["run_id"]),
        at_us=row["at_us"],
    )
